/* A provider of security labels that accepts every label, so that SECURITY LABEL works. Each session must load it. */
#include "postgres.h"

#include "commands/seclabel.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static void
accept(const ObjectAddress *object, const char *label)
{
}

void
_PG_init(void)
{
	register_label_provider("pg_cache_test", accept);
}
