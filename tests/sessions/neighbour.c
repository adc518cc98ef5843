/*
 * An extension of somebody else that wants to know of transactions, too: it runs a statement when one is about to commit. Loaded before
 * pg_cache it does so after pg_cache has looked at what was written, loaded behind it, before.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static char *statement;

static void
at_end(XactEvent event, void *nothing)
{
	if (event != XACT_EVENT_PRE_COMMIT || statement[0] == '\0')
		return;
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute(statement, false, 0) < 0)
		elog(ERROR, "the neighbour's statement fails");
	PopActiveSnapshot();
	SPI_finish();
}

void
_PG_init(void)
{
	DefineCustomStringVariable("neighbour.statement", "What is run before each commit.", NULL, &statement, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(at_end, NULL);
}
