/*
 * Another extension that registers callbacks for the end of transactions.
 *
 * PostgreSQL calls the callback that was registered last first. So if this library is loaded before pg_cache, its callback runs
 * after that of pg_cache, and else before it.
 *
 * neighbour.statement: a statement that runs when a transaction is about to commit or to be prepared. If this library is loaded
 * before pg_cache, the statement runs after pg_cache has looked at what the transaction wrote, and else before that.
 *
 * neighbour.gate: a file. While it exists, a transaction that has committed waits in this library's callback: others see its rows,
 * and the server has not sent its catalog invalidation messages.
 *
 * neighbour_hold_messages(gate): holds SInvalWriteLock in shared mode while the file exists. To send catalog invalidation messages,
 * a transaction takes this lock exclusively. So every transaction that has changed a catalog waits after its rows have become
 * visible and before its messages are sent, also in COMMIT PREPARED.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "pgstat.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

void _PG_init(void);
PG_FUNCTION_INFO_V1(neighbour_hold_messages);

static char *statement;
static char *gate;

/* Waits while the file exists, at most about five minutes. Raises no error: in a COMMIT callback that would restart the server. */
static void
wait_at(const char *file)
{
	for (int round = 0; round < 300 * 500 && access(file, F_OK) == 0; round++)
	{
		pgstat_report_wait_start(PG_WAIT_EXTENSION);
		pg_usleep(2000L);
		pgstat_report_wait_end();
	}
}

static void
at_end(XactEvent event, void *nothing)
{
	if (event == XACT_EVENT_COMMIT && gate[0] != '\0')
		wait_at(gate);
	if ((event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE) || statement[0] == '\0')
		return;
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute(statement, false, 0) < 0)
		elog(ERROR, "the neighbour's statement fails");
	PopActiveSnapshot();
	SPI_finish();
}

Datum
neighbour_hold_messages(PG_FUNCTION_ARGS)
{
	char	   *file = text_to_cstring(PG_GETARG_TEXT_PP(0));

	LWLockAcquire(SInvalWriteLock, LW_SHARED);
	wait_at(file);
	LWLockRelease(SInvalWriteLock);
	PG_RETURN_VOID();
}

void
_PG_init(void)
{
	DefineCustomStringVariable("neighbour.statement", "What is run before each commit and each prepare.", NULL, &statement, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("neighbour.gate", "A file: while it exists, committed transactions wait.", NULL, &gate, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(at_end, NULL);
}
