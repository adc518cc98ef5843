/*
 * A table access method that stores rows as "heap" does, and whose inserted rows the server does not count. So pg_cache must not
 * conclude from the server's counters that a transaction has changed no row of such a table (writes/no_ops.rs).
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "fmgr.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(uncounted_handler);

static TableAmRoutine routine;

/* Inserts a row while the relation has no counters. */
static void
insert_uncounted(Relation relation, TupleTableSlot *slot, CommandId cid, int options, BulkInsertState state)
{
	bool		enabled = relation->pgstat_enabled;
	struct PgStat_TableStatus *info = relation->pgstat_info;

	relation->pgstat_enabled = false;
	relation->pgstat_info = NULL;
	GetHeapamTableAmRoutine()->tuple_insert(relation, slot, cid, options, state);
	relation->pgstat_enabled = enabled;
	relation->pgstat_info = info;
}

Datum
uncounted_handler(PG_FUNCTION_ARGS)
{
	routine = *GetHeapamTableAmRoutine();
	routine.tuple_insert = insert_uncounted;
	PG_RETURN_POINTER(&routine);
}
