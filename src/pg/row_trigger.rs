//! The trigger that reports each changed row of a table: this file creates it, drops it, and reads the row of a call. A watch with
//! placeholders, such as the tag `order:{id}`, needs it: `store/row_tags.rs` makes the tags of a changed row, and invalidates them.
//! (A *watch* has tags that stand for a table: a change of the table invalidates the values with these tags.)
//!
//! The trigger is an internal one, like the triggers of foreign keys: `\d` does not show it, `pg_dump` leaves it out, and `ALTER
//! TABLE … DISABLE TRIGGER USER` does not stop it. The server calls it after the statement, once for each changed row, also in a
//! session with `session_replication_role = replica`. DROP of the table or of the trigger's function drops the trigger, too.
//!
//! [`adjust`], [`is_column_for_tags`], [`RowChange::column`] and [`RowChange::add`] may raise errors of the server.

#![allow(unsafe_code)]

use super::analysis;
use super::call_info::Call;
use super::memory;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use std::ffi::{CStr, CString, c_int};

/// The name of the trigger. The server adds an underscore and a number.
const NAME: &CStr = c"pg_cache_rows";

unsafe extern "C-unwind" {
    /// Returns a list of the OIDs of a relation and of all relations below it in its inheritance tree, and locks them.
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

/// Calls [`find_all_inheritors`] without asking for the numbers of parents.
#[allow(ffi_unwind_calls)] // The guard turns an error of the server into a panic.
unsafe fn inheritors(parent: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> *mut pg_sys::List {
    // SAFETY: as the caller promises. No value needs to be dropped inside of the guard.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| find_all_inheritors(parent, lock, std::ptr::null_mut())) }
}

/// Returns the function of the trigger, `pgcache.rows_changed()`, in the schema with this OID. None if there is no such function.
fn function(schema: u32) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up in the server's cache of pg_proc, by a name, an empty list of types, and a schema. The entry is released
    // after the last access.
    unsafe {
        let types = pg_sys::buildoidvector(std::ptr::null(), 0);
        let tuple = pg_sys::SearchSysCache3(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as c_int,
            c"rows_changed".as_ptr().into(),
            types.into(),
            pg_sys::Oid::from(schema).into(),
        );
        if tuple.is_null() {
            return None;
        }
        let oid = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).oid;
        pg_sys::ReleaseSysCache(tuple);
        Some(oid)
    }
}

/// Returns the trigger of an open table that calls a function, and whether it runs in every session.
///
/// # Safety
/// The relation must be open.
unsafe fn trigger_of(relation: pg_sys::Relation, function: pg_sys::Oid) -> Option<(pg_sys::Oid, bool)> {
    // SAFETY: as the caller promises. A relation without triggers has no description of triggers.
    unsafe {
        let all = (*relation).trigdesc;
        if all.is_null() {
            return None;
        }
        let triggers = std::slice::from_raw_parts((*all).triggers, (*all).numtriggers as usize);
        let found = triggers.iter().find(|trigger| trigger.tgfoid == function && trigger.tgisinternal)?;
        Some((found.tgoid, found.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS))
    }
}

/// Creates and drops the triggers of a relation and of all relations below it in its inheritance tree. Afterwards, a table of this
/// tree has the trigger exactly if `is_wanted` returns true for it. Partitioned tables and materialized views never have the
/// trigger: partitioned tables have no rows of their own, and a refresh of a materialized view calls no triggers. Locks the
/// relations as CREATE TRIGGER does, and a table that loses its trigger as DROP TRIGGER does, until the transaction ends. Does
/// nothing if the relation does not exist. May raise errors.
///
/// The caller must have checked that the current role may do this. `schema` is the schema of the extension.
pub fn adjust(relation: u32, schema: u32, is_wanted: impl Fn(u32) -> bool) {
    let Some(function) = function(schema) else { return };
    let lock = pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: opens the relation if it exists, and then lists it with all relations below it, which stay locked until the
    // transaction ends. Each of them is opened and closed again under that lock. The elements of the list are OIDs.
    unsafe {
        let top = pg_sys::try_relation_open(relation.into(), lock);
        if top.is_null() {
            return;
        }
        pg_sys::relation_close(top, pg_sys::NoLock as pg_sys::LOCKMODE);
        let tree = inheritors(relation.into(), lock);
        let oids = std::slice::from_raw_parts((*tree).elements, (*tree).length as usize);
        for oid in oids.iter().map(|cell| cell.oid_value) {
            let open = pg_sys::relation_open(oid, pg_sys::NoLock as pg_sys::LOCKMODE);
            let kind = (*(*open).rd_rel).relkind as u8;
            let found = trigger_of(open, function);
            pg_sys::relation_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
            match (found, kind == pg_sys::RELKIND_RELATION && is_wanted(oid.to_u32())) {
                (None, true) => create(oid, function),
                // ALTER TABLE … ENABLE TRIGGER ALL has changed the trigger: it no longer runs in every session.
                (Some((trigger, false)), true) => {
                    drop_trigger(trigger);
                    pg_sys::CommandCounterIncrement();
                    create(oid, function);
                }
                (Some((trigger, _)), false) => drop_trigger(trigger),
                _ => {}
            }
        }
    }
}

/// Creates the trigger of a table.
fn create(table: pg_sys::Oid, function: pg_sys::Oid) {
    let nothing = pg_sys::InvalidOid;
    // SAFETY: a statement as the parser would make it for CREATE TRIGGER … AFTER INSERT OR UPDATE OR DELETE … FOR EACH ROW. The
    // server takes table and function from the arguments. Missing lists and expressions are null.
    unsafe {
        let mut statement =
            pgrx::PgBox::<pg_sys::CreateTrigStmt>::alloc_node(pg_sys::NodeTag::T_CreateTrigStmt);
        statement.trigname = pg_sys::pstrdup(NAME.as_ptr());
        statement.row = true;
        statement.timing = pg_sys::TRIGGER_TYPE_AFTER as i16;
        statement.events =
            (pg_sys::TRIGGER_TYPE_INSERT | pg_sys::TRIGGER_TYPE_UPDATE | pg_sys::TRIGGER_TYPE_DELETE) as i16;
        let trigger = pg_sys::CreateTriggerFiringOn(
            statement.into_pg(),
            std::ptr::null(),
            table,
            nothing,
            nothing,
            nothing,
            function,
            nothing,
            std::ptr::null_mut(),
            true,
            false,
            pg_sys::TRIGGER_FIRES_ALWAYS as std::ffi::c_char,
        );
        // The server records a normal dependency on the function, with which DROP EXTENSION would fail. An automatic one replaces
        // it.
        pg_sys::CommandCounterIncrement();
        pg_sys::deleteDependencyRecordsForSpecific(
            pg_sys::TriggerRelationId,
            trigger.objectId,
            b'n' as std::ffi::c_char,
            pg_sys::ProcedureRelationId,
            function,
        );
        let function = pg_sys::ObjectAddress {
            classId: pg_sys::ProcedureRelationId,
            objectId: function,
            objectSubId: 0,
        };
        pg_sys::recordDependencyOn(
            &raw const trigger,
            &raw const function,
            pg_sys::DependencyType::DEPENDENCY_AUTO,
        );
    }
}

fn drop_trigger(trigger: pg_sys::Oid) {
    let trigger =
        pg_sys::ObjectAddress { classId: pg_sys::TriggerRelationId, objectId: trigger, objectSubId: 0 };
    // SAFETY: the trigger exists, and its table is locked.
    unsafe {
        pg_sys::performDeletion(
            &raw const trigger,
            pg_sys::DropBehavior::DROP_RESTRICT,
            pg_sys::PERFORM_DELETION_INTERNAL as c_int,
        );
    }
}

/// A change of a row: the call of the trigger's function.
#[derive(Clone, Copy, Debug)]
pub struct RowChange {
    relation: pg_sys::Relation,
    /// The row before the change; null for INSERT.
    old: pg_sys::HeapTuple,
    /// The row after the change; null for DELETE.
    new: pg_sys::HeapTuple,
}

impl RowChange {
    /// Returns the change for which the trigger's function was called. None if the function was called in another way.
    pub fn of(call: Call) -> Option<Self> {
        let context = call.context();
        // SAFETY: the node that the server passes to a function, or null. For a call as a trigger it is a `TriggerData`, whose
        // tuples exist during the call.
        unsafe {
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return None;
            }
            let data = &*context.cast::<pg_sys::TriggerData>();
            let none = std::ptr::null_mut();
            // A trigger of a user would count rows twice. The surplus could hide rows that were not reported.
            let is_ours = (*data.tg_trigger).tgisinternal;
            let is_for_row = data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
            let (old, new) = match data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
                pg_sys::TRIGGER_EVENT_INSERT => (none, data.tg_trigtuple),
                pg_sys::TRIGGER_EVENT_UPDATE => (data.tg_trigtuple, data.tg_newtuple),
                pg_sys::TRIGGER_EVENT_DELETE => (data.tg_trigtuple, none),
                _ => return None,
            };
            (is_ours && is_for_row).then_some(Self { relation: data.tg_relation, old, new })
        }
    }

    /// Returns the OID of the table.
    pub fn relation(&self) -> u32 {
        // SAFETY: the relation is open during the call.
        unsafe { (*self.relation).rd_id.to_u32() }
    }

    pub fn has_old(&self) -> bool {
        !self.old.is_null()
    }

    pub fn has_new(&self) -> bool {
        !self.new.is_null()
    }

    /// Returns the column with this name. None if the table has no such column, or if the column cannot be a part of a tag.
    pub fn column(&self, name: &[u8]) -> Option<Column> {
        let (number, kind) = find_column(self.relation(), name)?;
        can_be_in_tags(self.relation(), number, kind).then(|| Column::new(number, kind))
    }

    /// Adds at most `bytes_max` bytes of the value of a column to a text: of the old row, or of the new one. Returns false if the
    /// value is null.
    pub fn add(&self, column: &Column, is_old: bool, bytes_max: usize, text: &mut Vec<u8>) -> bool {
        let tuple = if is_old { self.old } else { self.new };
        if tuple.is_null() {
            return false;
        }
        let mut is_null = false;
        // SAFETY: the tuple is a row of the relation, and the column was found in it.
        let value = unsafe {
            pg_sys::heap_getattr(tuple, column.number.into(), (*self.relation).rd_att, &mut is_null)
        };
        if !is_null {
            column.add(value, bytes_max, text);
        }
        !is_null
    }
}

/// Returns the number and the type of a column. None if the table has no such column.
fn find_column(relation: u32, name: &[u8]) -> Option<(i16, pg_sys::Oid)> {
    let name = memory::terminated(name)?;
    // SAFETY: looks up catalogs. A dropped column has another name, and system columns have negative numbers.
    unsafe {
        let number = pg_sys::get_attnum(relation.into(), name.as_ptr());
        (number > 0).then(|| (number, pg_sys::get_atttype(relation.into(), number)))
    }
}

/// Returns whether a column can be a part of a tag. A virtual generated column cannot, because the row does not contain its value.
/// Nor can a column whose values change their texts when a definition changes, such as values of row types and of `regclass`.
fn can_be_in_tags(relation: u32, number: i16, kind: pg_sys::Oid) -> bool {
    const VIRTUAL: u8 = b'v';
    // SAFETY: looks up a catalog, for a column that exists.
    let generated = unsafe { pg_sys::get_attgenerated(relation.into(), number) };
    generated as u8 != VIRTUAL && !analysis::follows_definitions(kind)
}

/// Returns whether a relation has a column with this name that can be a part of a tag. None if it has no such column.
pub fn is_column_for_tags(relation: u32, name: &[u8]) -> Option<bool> {
    find_column(relation, name).map(|(number, kind)| can_be_in_tags(relation, number, kind))
}

/// A column whose values become texts.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    number: i16,
    form: Form,
}

/// How the values of a type become texts.
#[derive(Clone, Copy, Debug)]
enum Form {
    Int2,
    Int4,
    Int8,
    /// The bytes of the value are the text.
    Text,
    /// The bytes of the value without the blanks at the end are the text.
    Padded,
    /// This output function of the type makes the text. Its result depends on no setting.
    Plain(pg_sys::Oid),
    /// This output function of the type makes the text, with the settings of [`SETTINGS`].
    BySettings(pg_sys::Oid),
    Bool,
    /// The function for the cast to text makes the text: unlike the output function, it always writes the length of the netmask.
    Inet,
}

/// The settings with which values become texts, so that all sessions get the same text for the same value.
const SETTINGS: [(&CStr, &CStr); 8] = [
    (c"datestyle", c"ISO, YMD"),
    (c"intervalstyle", c"postgres"),
    (c"timezone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    (c"search_path", c"pg_catalog"),
    (c"quote_all_identifiers", c"off"),
];

impl Column {
    fn new(number: i16, kind: pg_sys::Oid) -> Self {
        // SAFETY: looks up catalogs.
        let (base, output, is_enum) = unsafe {
            let base = pg_sys::getBaseType(kind);
            let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
            pg_sys::getTypeOutputInfo(base, &raw mut output, &raw mut is_varlena);
            (base, output, pg_sys::get_typtype(base) as u8 == pg_sys::TYPTYPE_ENUM)
        };
        let form = match base {
            pg_sys::INT2OID => Form::Int2,
            pg_sys::INT4OID => Form::Int4,
            pg_sys::INT8OID => Form::Int8,
            pg_sys::BOOLOID => Form::Bool,
            pg_sys::INETOID => Form::Inet,
            pg_sys::TEXTOID | pg_sys::VARCHAROID => Form::Text,
            pg_sys::BPCHAROID => Form::Padded,
            pg_sys::NUMERICOID | pg_sys::UUIDOID | pg_sys::OIDOID | pg_sys::NAMEOID | pg_sys::CHAROID => {
                Form::Plain(output)
            }
            _ if is_enum || output == pg_sys::Oid::from(pg_sys::F_TEXTOUT) => Form::Plain(output),
            _ => Form::BySettings(output),
        };
        Self { number, form }
    }

    /// Adds at most `bytes_max` bytes of a value of the column to a text.
    fn add(&self, value: pg_sys::Datum, bytes_max: usize, text: &mut Vec<u8>) {
        let mut write = |bytes: &[u8]| {
            let bytes = &bytes[..bytes.len().min(bytes_max)];
            memory::reserve(text, bytes.len());
            text.extend_from_slice(bytes);
        };
        match self.form {
            Form::Int2 => write(Digits::of((value.value() as i16).into()).bytes()),
            Form::Int4 => write(Digits::of((value.value() as i32).into()).bytes()),
            Form::Int8 => write(Digits::of(value.value() as i64).bytes()),
            Form::Bool => write(if value.value() & 0xff != 0 { b"true" } else { b"false" }),
            // SAFETY: a Datum of a text. The server copies the text if it is compressed or stored in a TOAST table.
            Form::Text => unsafe {
                write(super::varlena::content(value));
            },
            // SAFETY: as above.
            Form::Padded => unsafe {
                let padded = super::varlena::content(value);
                let blanks = padded.iter().rev().take_while(|byte| **byte == b' ').count();
                write(&padded[..padded.len() - blanks]);
            },
            // SAFETY: the function takes an inet and returns a new text.
            Form::Inet => unsafe {
                let shown =
                    pg_sys::OidFunctionCall1Coll(pg_sys::F_TEXT_INET.into(), pg_sys::InvalidOid, value);
                write(super::varlena::content(shown));
            },
            Form::Plain(output) => write(output_of(output, value).as_bytes()),
            Form::BySettings(output) => {
                let _guard = FixedSettings::new();
                write(output_of(output, value).as_bytes());
            }
        }
    }
}

/// Returns the text that an output function makes of a value of its type.
fn output_of(function: pg_sys::Oid, value: pg_sys::Datum) -> CString {
    // SAFETY: the output function of the value's type returns a new string that ends with a zero.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(function, value);
        let copy = memory::terminated(CStr::from_ptr(text).to_bytes()).unwrap_or_default();
        pg_sys::pfree(text.cast());
        copy
    }
}

/// The decimal digits of a number.
struct Digits {
    digits: [u8; 20],
    from: usize,
}

impl Digits {
    fn of(number: i64) -> Self {
        let (mut digits, mut from, mut rest) = ([0; 20], 20, number.unsigned_abs());
        loop {
            from -= 1;
            digits[from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            from -= 1;
            digits[from] = b'-';
        }
        Self { digits, from }
    }

    fn bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

/// Gives the settings of [`SETTINGS`] their values, until dropped.
struct FixedSettings(c_int);

impl FixedSettings {
    fn new() -> Self {
        // SAFETY: opens a nesting level of settings, which `drop` closes again, also while an error unwinds.
        unsafe {
            let guard = Self(pg_sys::NewGUCNestLevel());
            for (name, value) in SETTINGS {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            guard
        }
    }
}

impl Drop for FixedSettings {
    fn drop(&mut self) {
        // SAFETY: restores the settings that `new` has found.
        unsafe { pg_sys::AtEOXact_GUC(true, self.0) };
    }
}

/// The result of the trigger's function. The server ignores it, but refuses a null.
#[derive(Debug)]
pub struct Fired;

// SAFETY: returns no tuple, which is valid for a trigger after the statement.
unsafe impl BoxRet for Fired {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(0_usize)) }
    }
}

// SAFETY: the SQL type is in the text of the function's definition.
unsafe impl SqlTranslatable for Fired {
    const TYPE_IDENT: &'static str = "pg_cache::Fired";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("trigger"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("trigger")));
}
