//! SQL functions for events. An *event* is a name for something that happens in an application. Emitting the event invalidates its
//! *targets*: keys, patterns and tags, which may have placeholders for values of the event's payload. A function that has changed
//! or emitted an event sets the status of the session, which `cache_status()` returns (`store/status.rs`).

use super::arguments::{self, invalid, null};
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::jsonb::{self, Element};
use crate::pg::varlena::{JsonbArgument, OwnedText, TextArgument, TextsArgument};
use crate::pg::{catalog, memory};
use crate::store::event::{self, Kind, NAME_BYTES_MAX, TARGET_BYTES_MAX};
use crate::store::space::{self, Privilege};
use crate::store::status::{self, Status};
use crate::store::template::Template;
use pgrx::prelude::*;

/// Returns the bytes of the name of an event. Null, an empty name and a name that is too long are errors.
fn event_name<'a>(argument: Option<TextArgument<'a>>) -> Result<&'a [u8], Refused> {
    let name = argument.ok_or_else(|| null("event"))?.bytes();
    match name.len() {
        0 => Err(invalid("event must not be empty")),
        length if length > NAME_BYTES_MAX => {
            Err(invalid(format!("event must not be longer than {NAME_BYTES_MAX} bytes"))
                .detail(format!("It has {length} bytes.")))
        }
        _ => Ok(name),
    }
}

/// Returns the argument, or an error if it is not a valid target.
fn target(argument: Option<&[u8]>) -> Result<&[u8], Refused> {
    let target = argument.ok_or_else(|| null("target"))?;
    if target.len() > TARGET_BYTES_MAX {
        return Err(invalid(format!("target must not be longer than {TARGET_BYTES_MAX} bytes"))
            .detail(format!("It has {} bytes.", target.len())));
    }
    let (kind, text) = Kind::split(target);
    let refused = |detail: &str| {
        invalid(format!("invalid target: \"{}\"", shown(target))).detail(detail).hint(
            "Use a key such as 'user:{id}', a pattern such as 'match:user:{id}:*', or a tag such as 'tag:user:{id}'. \
             For a brace, write it twice.",
        )
    };
    if text.is_empty() {
        return Err(refused("It names nothing."));
    }
    let template = Template::parse(text).map_err(|why| refused(why.in_words()))?;
    if kind == Kind::Pattern && !event::is_pattern(&template) {
        return Err(refused(
            "A backslash in a pattern must be followed by the character that it makes literal.",
        ));
    }
    Ok(target)
}

/// Adds targets to an event: each time the event is emitted, its targets become invalid. The event keeps its earlier targets. Only
/// the owner of the extension may do this, because a target affects all roles that emit the event: it contains values of their
/// payloads, and their calls of `cache_emit` fail if the payload lacks the value of a placeholder.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_on_event(
    event: Option<TextArgument<'_>>,
    targets: Option<TextsArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) {
    let add = || -> Result<(), Refused> {
        let event = event_name(event)?;
        let targets = targets.ok_or_else(|| null("targets"))?.0;
        let mut checked = Vec::new();
        for argument in targets {
            memory::push(&mut checked, target(argument)?);
        }
        checked.sort_unstable();
        checked.dedup();
        let checked = memory::collect(checked.into_iter().map(|target| OwnedText(memory::copy(target))));
        if checked.is_empty() {
            return Err(invalid("targets must not be empty")
                .hint("To remove the targets of an event, run cache_off_event."));
        }
        space::require_owner("change events")?;
        let space = arguments::space(space, Privilege::Admin)?;
        catalog::write(
            "INSERT INTO pgcache.events AS e
             SELECT $1, $2::pg_catalog.oid, $3
             ON CONFLICT (event, space) DO UPDATE
             SET targets = ARRAY(SELECT pg_catalog.unnest(e.targets) UNION SELECT pg_catalog.unnest(excluded.targets) ORDER BY 1)
             WHERE NOT pg_catalog.arraycontains(e.targets, excluded.targets)",
            &[OwnedText(memory::copy(event)).into(), i64::from(space.oid).into(), checked.into()],
        );
        // The limits also count the new targets, so they are checked after the write. An error undoes the write.
        event::check_limits(event, space.oid)
    };
    add().or_raise();
    status::set(Status::Done);
}

/// Removes the targets of an event in all spaces. Does nothing if the event has none. Only the owner of the extension may do this.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_off_event(event: Option<TextArgument<'_>>) {
    let remove = || -> Result<(), Refused> {
        let event = event_name(event)?;
        space::require_owner("change events")?;
        catalog::write(
            "DELETE FROM pgcache.events WHERE event OPERATOR(pg_catalog.=) $1",
            &[OwnedText(memory::copy(event)).into()],
        );
        Ok(())
    };
    remove().or_raise();
    status::set(Status::Done);
}

/// The payload of an event: the members of a JSON object.
struct Payload<'a>(Vec<(&'a [u8], Element)>);

impl<'a> Payload<'a> {
    fn of(argument: Option<JsonbArgument<'a>>) -> Result<Self, Refused> {
        let argument = argument.ok_or_else(|| null("payload"))?;
        jsonb::elements_by_name(argument).map(Self).ok_or_else(|| {
            invalid("payload must be a JSON object")
                .hint("Use payload => '{\"user_id\": 42}' for the placeholder {user_id}.")
        })
    }

    /// Adds the value of a placeholder to a text.
    fn add(
        &self,
        event: &[u8],
        target: &[u8],
        placeholder: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let found = self.0.iter().find(|(name, _)| *name == placeholder);
        let refused = |what: &str| {
            invalid(format!("{what} \"{}\" in the payload of event \"{}\"", shown(placeholder), shown(event)))
                .detail(format!("Target \"{}\" needs its value.", shown(target)))
        };
        let (_, element) = found.ok_or_else(|| refused("there is no member"))?;
        if element.is_nested() {
            return Err(refused("a target cannot have an array or an object as the value of member"));
        }
        let value =
            element.text().ok_or_else(|| refused("a target cannot have null as the value of member"))?;
        memory::reserve(text, value.as_bytes().len());
        text.extend_from_slice(value.as_bytes());
        Ok(())
    }
}

/// Invalidates the targets of an event when the transaction commits. The values of the payload replace the placeholders of the
/// targets. The role needs the privilege write in at least one space, as for invalidating a tag. It needs none in the spaces of the
/// targets, because the owner of the extension has registered them.
#[pg_extern(volatile, parallel_restricted)]
fn cache_emit(event: Option<TextArgument<'_>>, payload: default!(Option<JsonbArgument<'_>>, "'{}'")) {
    let emit = || -> Result<(), Refused> {
        let name = event_name(event)?;
        let payload = Payload::of(payload)?;
        space::require_tag_writer()?;
        event::emit(name, |target, placeholder, text| payload.add(name, target, placeholder, text))
    };
    emit().or_raise();
    status::set(Status::Done);
}

/// The function behind the view `cache_events`.
#[pg_schema]
mod pgcache {
    use crate::pg::memory;
    use crate::pg::varlena::{Text, Varlena};
    use crate::store::{event, space};
    use pgrx::prelude::*;
    use std::collections::BTreeSet;

    /// Returns the events of the spaces that the caller may read, or all events if the caller may see statistics. Each target has a
    /// row of its own.
    #[pg_extern(stable, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn visible_events()
    -> TableIterator<'static, (name!(event, Text), name!(space, String), name!(target, Text))> {
        let mut spaces = BTreeSet::new();
        space::each_visible(|oid, _, _| {
            memory::check();
            spaces.insert(oid);
        });
        let mut rows = Vec::new();
        let text = |bytes: &[u8]| Text(Varlena::of(bytes));
        for (name, registered) in event::all().iter() {
            for of_space in registered.iter().filter(|of_space| spaces.contains(&of_space.space_oid)) {
                for target in &of_space.targets {
                    memory::push(&mut rows, (text(name), of_space.space.clone(), text(target)));
                }
            }
        }
        TableIterator::new(rows)
    }
}
