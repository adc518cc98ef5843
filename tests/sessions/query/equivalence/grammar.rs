//! Random read-only queries over the schema of `schema.rs`. Their results depend on rows, definitions and settings only, so two
//! runs with the same of these return the same rows: aggregates and windows have an order that is total up to equal rows, and
//! `LIMIT` stands behind an order by all columns. Values that are equal and look different (`1.0` and `1.00`) are avoided.

use super::schema::{FUNCTIONS, RELATIONS, Type};
use crate::hunter::dice::Dice;

/// A query and its arguments.
#[derive(Clone, Debug)]
pub struct Text {
    pub query: String,
    pub arguments: Vec<Argument>,
    /// Whether the query orders its rows by all columns.
    pub is_ordered: bool,
    /// The types of the columns. Empty if they are not known.
    pub types: Vec<Type>,
}

/// An argument, as JSON and as an SQL literal.
#[derive(Clone, Debug)]
pub struct Argument {
    pub json: String,
    pub literal: String,
}

/// A column that an expression may use: what it is called there, and its type.
type Column = (String, Type);

/// Writes one query.
pub struct Grammar<'d> {
    /// The random numbers.
    dice: &'d mut Dice,
    /// The number of names given so far.
    names: usize,
    /// The arguments of the query.
    arguments: Vec<Argument>,
    /// The common table expressions that a `FROM` may name.
    tables: Vec<(String, Vec<Type>)>,
    /// The number of queries within queries that are still allowed.
    room: usize,
}

/// Returns a random query.
pub fn query(dice: &mut Dice) -> Text {
    let room = 2 + dice.roll(4);
    let mut grammar = Grammar { dice, names: 0, arguments: Vec::new(), tables: Vec::new(), room };
    let types: Vec<Type> = (0..1 + grammar.dice.roll(4)).map(|_| grammar.of()).collect();
    let (query, is_ordered) = grammar.statement(&types);
    let (query, arguments) = numbered(&query, &grammar.arguments);
    Text { query, arguments, is_ordered, types }
}

/// Numbers the parameters of a query anew, because some were in expressions that were not used. Returns the query and the arguments
/// that are left. Every `$` of the query must begin a parameter.
fn numbered(query: &str, arguments: &[Argument]) -> (String, Vec<Argument>) {
    let mut parts = query.split('$');
    let mut numbered = parts.next().unwrap_or_default().to_owned();
    let mut left: Vec<usize> = Vec::new();
    for part in parts {
        let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
        let old: usize = part[..end].parse().expect("a parameter");
        let place = left.iter().position(|known| *known == old).unwrap_or_else(|| {
            left.push(old);
            left.len() - 1
        });
        numbered += &format!("${}{}", place + 1, &part[end..]);
    }
    (numbered, left.into_iter().map(|old| arguments[old - 1].clone()).collect())
}

/// Returns a random condition on the columns of `RELATIONS[relation]` under the alias `r`, without parameters.
pub fn condition(dice: &mut Dice, relation: usize) -> String {
    let mut grammar = Grammar { dice, names: 0, arguments: Vec::new(), tables: Vec::new(), room: 1 };
    let columns = columns_of("r", RELATIONS[relation].columns);
    loop {
        grammar.arguments.clear();
        let condition = grammar.condition(&columns, 3);
        if grammar.arguments.is_empty() {
            return condition;
        }
    }
}

/// Returns the columns under an alias.
fn columns_of(alias: &str, columns: &[(&str, Type)]) -> Vec<Column> {
    columns.iter().map(|(name, of)| (format!("{alias}.{name}"), *of)).collect()
}

impl Grammar<'_> {
    fn one_in(&mut self, sides: usize) -> bool {
        self.dice.roll(sides) == 0
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.dice.roll(choices.len())]
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("q{}", self.names)
    }

    /// Returns a type. Those at the beginning of `ALL` are more likely.
    fn of(&mut self) -> Type {
        let below = 1 + self.dice.roll(Type::ALL.len());
        Type::ALL[self.dice.roll(below)]
    }

    /// The whole statement, and whether it orders its rows.
    fn statement(&mut self, types: &[Type]) -> (String, bool) {
        let mut with = String::new();
        if self.one_in(4) {
            with = "WITH ".to_owned();
            for number in 0..1 + self.dice.roll(2) {
                let name = self.name();
                let types: Vec<Type> = (0..1 + self.dice.roll(3)).map(|_| self.of()).collect();
                let how = self.pick(&["", "MATERIALIZED ", "NOT MATERIALIZED "]);
                let body = self.select(&types, &[]);
                let comma = if number > 0 { ", " } else { "" };
                with += &format!("{comma}{name} AS {how}({body})");
                self.tables.push((name, types));
            }
            with += " ";
        } else if self.one_in(12) {
            let name = self.name();
            with = format!(
                "WITH RECURSIVE {name} (c1, c2) AS (SELECT id, 1 FROM customers WHERE id > {} UNION ALL
                     SELECT c.parent, {name}.c2 + 1 FROM {name} JOIN customers AS c ON c.id = {name}.c1 WHERE {name}.c2 < 6) ",
                self.dice.roll(24)
            );
            self.tables.push((name, vec![Type::Int, Type::Int]));
        }
        let body = if self.one_in(5) {
            let how =
                self.pick(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL"]);
            let branches = [self.select(types, &[]), self.select(types, &[])];
            format!("({}) {how} ({})", branches[0], branches[1])
        } else {
            self.select(types, &[])
        };
        let is_ordered = self.one_in(3);
        let end = if is_ordered { self.order_and_limit(types.len()) } else { String::new() };
        (format!("{with}{body}{end}"), is_ordered)
    }

    /// An order by all of the columns, and perhaps a limit.
    fn order_and_limit(&mut self, columns: usize) -> String {
        let mut order = String::from(" ORDER BY ");
        for column in 1..=columns {
            let comma = if column > 1 { ", " } else { "" };
            order +=
                &format!("{comma}{column}{}", self.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]));
        }
        match self.dice.roll(4) {
            0 => order,
            1 => format!("{order} LIMIT {} OFFSET {}", self.dice.roll(8), self.dice.roll(5)),
            2 => format!("{order} FETCH FIRST {} ROWS ONLY", 1 + self.dice.roll(5)),
            _ => format!("{order} LIMIT {}", self.dice.roll(12)),
        }
    }

    /// A query with columns `c1` and so on of these types. It may use columns of the query around it.
    fn select(&mut self, types: &[Type], outer: &[Column]) -> String {
        self.room = self.room.saturating_sub(1);
        if self.one_in(25) {
            let row = |grammar: &mut Self| {
                let values: Vec<String> = types.iter().map(|of| grammar.expression(*of, outer, 1)).collect();
                format!("({})", values.join(", "))
            };
            let rows: Vec<String> = (0..1 + self.dice.roll(3)).map(|_| row(self)).collect();
            let names: Vec<String> = (1..=types.len()).map(|number| format!("c{number}")).collect();
            let alias = self.name();
            let names = names.join(", ");
            return format!("SELECT {names} FROM (VALUES {}) AS {alias} ({names})", rows.join(", "));
        }
        let (from, columns) = self.from();
        let scope: Vec<Column> = columns.iter().chain(outer).cloned().collect();
        let filter =
            if self.one_in(3) { String::new() } else { format!(" WHERE {}", self.condition(&scope, 3)) };
        match self.dice.roll(10) {
            0..=2 => self.grouped(types, &columns, &format!("{from}{filter}")),
            3 => {
                let list = self.list(types, |grammar, of| grammar.window(of, &columns));
                format!("SELECT {list} FROM {from}{filter}")
            }
            how => {
                let distinct = if how == 4 { "DISTINCT " } else { "" };
                let list = self.list(types, |grammar, of| grammar.expression(of, &scope, 3));
                format!("SELECT {distinct}{list} FROM {from}{filter}")
            }
        }
    }

    /// The list of columns `c1` and so on.
    fn list(&mut self, types: &[Type], mut column: impl FnMut(&mut Self, Type) -> String) -> String {
        let columns: Vec<String> = types
            .iter()
            .enumerate()
            .map(|(place, of)| format!("{} AS c{}", column(self, *of), place + 1))
            .collect();
        columns.join(", ")
    }

    /// A query with aggregates. Some columns are the keys of its groups.
    fn grouped(&mut self, types: &[Type], columns: &[Column], from: &str) -> String {
        let mut keys = Vec::new();
        let (mut place, mut are_columns) = (0, true);
        let list = self.list(types, |grammar, of| {
            place += 1;
            let is_key = !can_be_aggregated(of) || grammar.one_in(3);
            if is_key {
                keys.push(place.to_string());
                // A key takes no outer column: an outer reference is no key of its own.
                let key = grammar.expression(of, columns, 1);
                are_columns &= columns.iter().any(|column| column.0 == key);
                return key;
            }
            grammar.aggregate(of, columns)
        });
        if keys.is_empty() {
            return format!("SELECT {list} FROM {from}");
        }
        let having = if self.one_in(4) { " HAVING count(*) > 1" } else { "" };
        let keys = keys.join(", ");
        // Where a key is not in the grouping set, PostgreSQL makes its column null, except if it is a constant. A parameter is
        // none. So the query would differ from the one with literals (`Text::inlined`), unless all keys are columns.
        let keys = match self.dice.roll(6) {
            0 if are_columns => format!("ROLLUP ({keys})"),
            1 if are_columns => format!("GROUPING SETS (({keys}), ())"),
            _ => keys,
        };
        format!("SELECT {list} FROM {from} GROUP BY {keys}{having}")
    }

    /// An aggregate of this type.
    fn aggregate(&mut self, of: Type, columns: &[Column]) -> String {
        let side = self.dice.roll(12);
        let mut one = |of: Type| self.expression(of, columns, 1);
        let call = match of {
            Type::Int if side.is_multiple_of(3) => format!("most({})", one(Type::Int)),
            Type::Int => format!("max({})", one(Type::Int)),
            Type::Big => match side % 4 {
                0 => "count(*)".to_owned(),
                1 => {
                    let of = self.of();
                    format!("count(DISTINCT {})", self.expression(of, columns, 1))
                }
                _ => format!("sum({})", one(Type::Int)),
            },
            Type::Numeric => match side % 3 {
                0 => format!("round(avg({}), 2)", one(Type::Int)),
                1 => format!("round(sum({}), 2)", one(Type::Numeric)),
                _ => format!("min({})", one(Type::Numeric)),
            },
            Type::Text => {
                let value = one(Type::Text);
                return match side % 3 {
                    0 => format!("string_agg({value}, ',' ORDER BY {value})"),
                    _ => format!("min({value})"),
                };
            }
            Type::Bool => format!("bool_and({})", one(Type::Bool)),
            Type::Date => format!("max({})", one(Type::Date)),
            Type::Moment => format!("min({})", one(Type::Moment)),
            Type::Mood => format!("max({})", one(Type::Mood)),
            Type::Ints => {
                let value = one(Type::Int);
                return format!("array_agg({value} ORDER BY {value})");
            }
            Type::Texts => {
                let value = one(Type::Text);
                return format!("array_agg(DISTINCT {value} ORDER BY {value})");
            }
            Type::Json => {
                let value = one(Type::Int);
                return format!("jsonb_agg({value} ORDER BY {value})");
            }
            Type::Small | Type::Place | Type::Span | Type::Bytes => unreachable!("{of:?} is a key"),
        };
        // The rounding stands outside of the aggregate.
        if call.starts_with("round") || !self.one_in(5) {
            return call;
        }
        format!("{call} FILTER (WHERE {})", self.condition(columns, 1))
    }

    /// A window function of this type, or an expression.
    fn window(&mut self, of: Type, columns: &[Column]) -> String {
        let by = self.expression(Type::Int, columns, 1);
        let order = self.expression(Type::Int, columns, 1);
        let over = match self.dice.roll(3) {
            0 => format!("(PARTITION BY {by} ORDER BY {order})"),
            1 => format!("(PARTITION BY {by})"),
            _ => format!("(ORDER BY {order} RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"),
        };
        match of {
            Type::Big => match self.dice.roll(4) {
                0 => format!("rank() OVER {over}"),
                1 => format!("dense_rank() OVER {over}"),
                2 => format!("count(*) OVER {over}"),
                _ => format!("sum({}) OVER {over}", self.expression(Type::Int, columns, 1)),
            },
            Type::Int | Type::Text | Type::Date => {
                let value = self.expression(of, columns, 1);
                let function = self.pick(&["lag", "lead", "first_value"]);
                format!("{function}({value}) OVER (PARTITION BY {by} ORDER BY {value})")
            }
            _ => self.expression(of, columns, 2),
        }
    }

    /// The items of `FROM`, and their columns.
    fn from(&mut self) -> (String, Vec<Column>) {
        let (mut from, mut columns) = self.item(&[]);
        let joins = [0, 0, 0, 1, 1, 2][self.dice.roll(6)];
        for _ in 0..joins {
            let is_lateral = self.one_in(5);
            let arguments = self.arguments.len();
            let (item, more) = self.item(if is_lateral { &columns } else { &[] });
            let lateral = if is_lateral && item.starts_with('(') { "LATERAL " } else { "" };
            let of = Type::Int;
            let [left, right] = [&columns, &more].map(|side| {
                let fit: Vec<&Column> = side.iter().filter(|column| column.1 == of).collect();
                fit.first().map(|_| fit[self.dice.roll(fit.len())].0.clone())
            });
            let (Some(left), Some(right)) = (left, right) else {
                self.arguments.truncate(arguments);
                continue;
            };
            let how = if is_lateral {
                self.pick(&["JOIN", "LEFT JOIN"])
            } else {
                self.pick(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
            };
            from = format!("{from} {how} {lateral}{item} ON {left} = {right}");
            columns.extend(more);
        }
        (from, columns)
    }

    /// An item of `FROM`. It may use `lateral` columns of the items before it.
    fn item(&mut self, lateral: &[Column]) -> (String, Vec<Column>) {
        let alias = self.name();
        if self.room > 0 && self.one_in(6) {
            let types = [Type::Int, self.of(), self.of()];
            let body = self.select(&types, lateral);
            let columns = (1..).zip(types).map(|(number, of)| (format!("{alias}.c{number}"), of)).collect();
            return (format!("({body}) AS {alias}"), columns);
        }
        if !self.tables.is_empty() && self.one_in(2) {
            let (name, types) = self.tables[self.dice.roll(self.tables.len())].clone();
            let columns = (1..).zip(types).map(|(number, of)| (format!("{alias}.c{number}"), of)).collect();
            return (format!("{name} AS {alias}"), columns);
        }
        let arrays: Vec<&Column> = lateral.iter().filter(|column| column.1 == Type::Ints).collect();
        if !arrays.is_empty() && self.one_in(2) {
            let array = &arrays[self.dice.roll(arrays.len())].0;
            return (
                format!("unnest({array}) AS {alias} (element)"),
                vec![(format!("{alias}.element"), Type::Int)],
            );
        }
        if self.one_in(8) {
            let function = &FUNCTIONS[self.dice.roll(FUNCTIONS.len())];
            let argument = self.dice.roll(9).to_string();
            let call = function.name.replacen('%', &argument, 1);
            let names: Vec<&str> = function.columns.iter().map(|column| column.0).collect();
            return (
                format!("{call} AS {alias} ({})", names.join(", ")),
                columns_of(&alias, function.columns),
            );
        }
        let relation = &RELATIONS[self.dice.roll(RELATIONS.len())];
        (format!("{} AS {alias}", relation.name), columns_of(&alias, relation.columns))
    }

    /// An expression of this type.
    fn expression(&mut self, of: Type, columns: &[Column], depth: usize) -> String {
        let fit: Vec<&Column> = columns.iter().filter(|column| column.1 == of).collect();
        if !fit.is_empty() && (depth == 0 || !self.one_in(3)) {
            return fit[self.dice.roll(fit.len())].0.clone();
        }
        if depth == 0 || self.one_in(5) {
            return self.constant(of);
        }
        let depth = depth - 1;
        if self.one_in(12) {
            let condition = self.condition(columns, depth);
            let [yes, no] = [(); 2].map(|()| self.expression(of, columns, depth));
            return format!("CASE WHEN {condition} THEN {yes} ELSE {no} END");
        }
        if self.one_in(12) {
            let [one, other] = [(); 2].map(|()| self.expression(of, columns, depth));
            return format!("coalesce({one}, {other})");
        }
        if self.room > 0 && self.one_in(6) {
            let body = self.select(&[of], columns);
            return format!("({body} ORDER BY 1 LIMIT 1)");
        }
        self.compound(of, columns, depth)
    }

    /// An expression of this type out of others.
    fn compound(&mut self, of: Type, columns: &[Column], depth: usize) -> String {
        let side = self.dice.roll(28);
        let mut sub = |of: Type| self.expression(of, columns, depth);
        match of {
            Type::Int => match side {
                0 => format!("({} + {})", sub(Type::Int), sub(Type::Int)),
                1 => format!("({} - {})", sub(Type::Int), sub(Type::Int)),
                2 => format!("({} % 7)", sub(Type::Int)),
                3 => format!("length({})", sub(Type::Text)),
                4 => format!("extract(day FROM {})::int", sub(Type::Date)),
                5 => format!("({})[1]", sub(Type::Ints)),
                6 => format!("cardinality({})", sub(Type::Texts)),
                7 => format!("({}).number", sub(Type::Place)),
                8 => format!("plus_one({})", sub(Type::Int)),
                9 => format!("thrice({})", sub(Type::Int)),
                10 => format!("visits_of({})", sub(Type::Int)),
                11 => format!("order_count({})", sub(Type::Int)),
                12 => "my_tenant()".to_owned(),
                13 => format!("({} ->> 'n')::int", sub(Type::Json)),
                14 => "secret_sum()".to_owned(),
                15 => format!("width_bucket({}, 0, 50, 5)", sub(Type::Int)),
                16 => format!("lower({})", sub(Type::Span)),
                _ => format!("extract(hour FROM {})::int", sub(Type::Moment)),
            },
            Type::Big => format!("({}::bigint + 1)", sub(Type::Int)),
            Type::Numeric => match side % 3 {
                0 => format!("round({} * 1.1, 2)", sub(Type::Numeric)),
                1 => format!("round({} / nullif({}, 0), 2)", sub(Type::Numeric), sub(Type::Int)),
                _ => format!("round({}::numeric, 2)", sub(Type::Int)),
            },
            Type::Text => match side {
                0 => format!("upper({})", sub(Type::Text)),
                1 => format!("({} || {})", sub(Type::Text), sub(Type::Text)),
                2 => format!("left({}, 3)", sub(Type::Text)),
                3 => format!("{}::text", sub(Type::Int)),
                4 => format!("{}::text", sub(Type::Mood)),
                5 => format!("to_char({}, 'YYYY-MM')", sub(Type::Date)),
                6 => format!("concat_ws('-', {}, {})", sub(Type::Text), sub(Type::Int)),
                7 => "current_user::text".to_owned(),
                8 => "current_setting('app.tenant', true)".to_owned(),
                9 => format!("{}::text", sub(Type::Moment)),
                10 => format!("greeting({})", sub(Type::Text)),
                11 => format!("shown({})", sub(Type::Moment)),
                12 => format!("({} ### {})", sub(Type::Text), sub(Type::Text)),
                13 => format!("{}::text", sub(Type::Date)),
                14 => format!("to_tsvector('public.words', {})::text", sub(Type::Text)),
                // The rest depends on settings, on the search path, or on catalogs.
                15 => format!("to_tsvector({})::text", sub(Type::Text)),
                16 => format!("({} * interval '1 day 2 hours')::text", sub(Type::Int)),
                17 => format!("({}::float8 / 3)::text", sub(Type::Int)),
                18 => format!("{}::text", sub(Type::Bytes)),
                19 => "array_to_string(enum_range(NULL::mood), ',')".to_owned(),
                20 => format!("pg_typeof({})::text", sub(Type::Int)),
                21 => "'items'::regclass::oid::text".to_owned(),
                22 => "to_regclass('items')::text".to_owned(),
                23 => "current_schema()::text".to_owned(),
                24 => format!("quote_ident({})", sub(Type::Text)),
                25 => format!("place_text({})", sub(Type::Place)),
                _ => match columns.iter().find(|column| column.0.ends_with(".id")) {
                    // All columns of a row: a new column appears here.
                    Some((id, _)) if self.one_in(2) => format!("{}::text", id.trim_end_matches(".id")),
                    _ => format!("array_to_string({}, ',')", self.expression(Type::Texts, columns, depth)),
                },
            },
            Type::Bool => format!("({})", self.condition(columns, depth)),
            Type::Date => match side % 2 {
                0 => format!("({} + {} % 100)", sub(Type::Date), sub(Type::Int)),
                _ => format!("{}::date", sub(Type::Moment)),
            },
            Type::Moment => match side % 3 {
                0 => format!("({} + interval '1 day')", sub(Type::Moment)),
                1 => format!("date_trunc('day', {})", sub(Type::Moment)),
                _ => format!("{}::timestamptz", sub(Type::Date)),
            },
            Type::Ints => match side % 3 {
                0 => format!("ARRAY[{}, {}]", sub(Type::Int), sub(Type::Int)),
                1 if self.room > 0 => {
                    let body = self.select(&[Type::Int], columns);
                    format!("ARRAY({body} ORDER BY 1 LIMIT 20)")
                }
                _ => format!("({} || {})", self.expression(Type::Ints, columns, depth), side),
            },
            Type::Texts => format!("string_to_array({}, ' ')", sub(Type::Text)),
            Type::Mood => format!("greatest({}, {})", sub(Type::Mood), sub(Type::Mood)),
            Type::Small => format!("({} % 100)::small", sub(Type::Int)),
            Type::Place => format!("ROW({}, {})::place", sub(Type::Text), sub(Type::Int)),
            Type::Span => {
                let [one, other] = [(); 2].map(|()| self.expression(Type::Int, columns, depth));
                format!("int4range(least({one}, {other}), greatest({one}, {other}))")
            }
            Type::Json => match side % 2 {
                0 => format!("jsonb_build_object('a', {}, 'b', {})", sub(Type::Int), sub(Type::Text)),
                _ => format!("to_jsonb({})", sub(Type::Ints)),
            },
            Type::Bytes => format!("decode(md5({}), 'hex')", sub(Type::Text)),
        }
    }

    /// A condition.
    fn condition(&mut self, columns: &[Column], depth: usize) -> String {
        if depth > 0 && self.one_in(3) {
            let [one, other] = [(); 2].map(|()| self.condition(columns, depth - 1));
            return match self.dice.roll(4) {
                0 => format!("({one} OR {other})"),
                1 => format!("NOT ({one})"),
                _ => format!("({one} AND {other})"),
            };
        }
        let depth = depth.saturating_sub(1);
        let of = match columns {
            [] => Type::Int,
            _ => columns[self.dice.roll(columns.len())].1,
        };
        let left = self.expression(of, columns, depth);
        let comparison = self.pick(&["=", "<>", "<", "<=", ">", ">="]);
        if self.room > 0 && depth > 0 && self.one_in(4) {
            return match self.dice.roll(3) {
                0 => format!("{left} IN ({})", self.select(&[of], columns)),
                1 => format!("{left} {comparison} ALL ({})", self.select(&[of], columns)),
                _ => format!("EXISTS ({})", self.select(&[of], columns)),
            };
        }
        match self.dice.roll(10) {
            0 => format!("{left} IS NULL"),
            1 => format!("{left} IS NOT NULL"),
            2 => format!("{left} IS DISTINCT FROM {}", self.expression(of, columns, depth)),
            3 => format!("{left} IN ({}, {})", self.constant(of), self.constant(of)),
            4 => format!("{left} BETWEEN {} AND {}", self.constant(of), self.expression(of, columns, depth)),
            5 if of == Type::Text => format!("{left} LIKE '%{}%'", self.dice.roll(6)),
            5 if of == Type::Int => format!("{left} = ANY ({})", self.expression(Type::Ints, columns, depth)),
            6 if of == Type::Span => format!("{left} @> {}", self.expression(Type::Int, columns, depth)),
            6 if of == Type::Ints => format!("{left} && {}", self.expression(Type::Ints, columns, depth)),
            7 if of == Type::Json => format!("{left} ? 'n'"),
            // With `transform_null_equals`, this is another test.
            8 => format!("{left} = NULL"),
            9 if of == Type::Date => format!("{left} < current_date"),
            9 if of == Type::Text => "has_table_privilege('public.items', 'SELECT')".to_owned(),
            _ => format!("{left} {comparison} {}", self.expression(of, columns, depth)),
        }
    }

    /// A literal or a parameter.
    fn constant(&mut self, of: Type) -> String {
        let number = self.dice.roll(30);
        if self.one_in(40) {
            return format!("NULL::{}", of.name());
        }
        let literal = match of {
            Type::Int | Type::Big | Type::Small => number.to_string(),
            Type::Numeric => format!("{number}.25"),
            Type::Text => {
                self.pick(&["name 3", "code 1", "a", "b", "", "note 2", "alice", "x'y", "body 1"]).to_owned()
            }
            Type::Bool => self.pick(&["true", "false"]).to_owned(),
            // The setting DateStyle decides which of the numbers is the month.
            Type::Date if number < 5 => format!("03/{:02}/2024", number + 1),
            Type::Date => format!("2024-01-{:02}", number % 28 + 1),
            Type::Moment if number < 5 => format!("2024-03-{:02} 12:00:00", number + 1),
            Type::Moment => format!("2024-03-{:02} 12:00:00+00", number % 28 + 1),
            Type::Ints => format!("{{{number},{}}}", number % 3),
            // The setting array_nulls decides whether the first element is null.
            Type::Texts if number < 4 => "{NULL,u}".to_owned(),
            Type::Texts => format!("{{t{},u}}", number % 4),
            Type::Mood => self.pick(&["sad", "ok", "happy", "sad", "ok", "meh"]).to_owned(),
            Type::Place => format!("(street {},{number})", number % 3),
            Type::Span => format!("[{number},{})", number + 5),
            Type::Json => format!("{{\"n\": {number}}}"),
            Type::Bytes => format!("\\x{number:02x}"),
        };
        if self.arguments.len() < 4 && self.one_in(8) {
            let json = match of {
                Type::Int | Type::Big | Type::Small | Type::Numeric | Type::Bool | Type::Json => {
                    literal.clone()
                }
                Type::Ints => format!("[{number}, {}]", number % 3),
                _ => format!("\"{}\"", literal.replace('\\', "\\\\")),
            };
            let literal = format!("'{}'", literal.replace('\'', "''"));
            let (json, literal) =
                if self.one_in(10) { ("null".to_owned(), "NULL".to_owned()) } else { (json, literal) };
            self.arguments.push(Argument { json, literal });
            return format!("${}::{}", self.arguments.len(), of.name());
        }
        match of {
            Type::Int if self.one_in(2) => literal,
            // Both ways to write a type.
            _ if self.one_in(2) => format!("CAST('{}' AS {})", literal.replace('\'', "''"), of.name()),
            _ => format!("'{}'::{}", literal.replace('\'', "''"), of.name()),
        }
    }
}

/// Returns whether `aggregate` knows the type.
fn can_be_aggregated(of: Type) -> bool {
    !matches!(of, Type::Small | Type::Place | Type::Span | Type::Bytes)
}
