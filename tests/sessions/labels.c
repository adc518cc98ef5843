/* A provider of security labels, which accepts every label. So the tests of changes of definitions can use SECURITY LABEL. */

#include "postgres.h"

#include "catalog/objectaddress.h"
#include "commands/seclabel.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static void
check(const ObjectAddress *object, const char *label)
{
}

void
_PG_init(void)
{
	register_label_provider("labels", check);
}
