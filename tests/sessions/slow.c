/*
 * A function that takes 50 ms and returns its argument. It is written in C, so that pg_cache knows what it reads before it runs:
 * nothing.
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(slow);

Datum
slow(PG_FUNCTION_ARGS)
{
	pg_usleep(50000L);
	PG_RETURN_INT64(PG_GETARG_INT64(0));
}
