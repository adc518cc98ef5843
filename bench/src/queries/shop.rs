//! The sample shop of `make run` (`examples/shop.sql`), and its dashboard.

use super::stage::Stage;

/// The columns of the dashboard, as `cache_query` wants them. They must be those of the view `dashboard` of the script, in its
/// order.
pub const COLUMNS: &str = "month date, category text, revenue numeric, orders bigint, buyers bigint, median_line numeric, \
    top_country text, growth_percent numeric";
/// The whole dashboard: a row for each of 24 months and 8 categories.
pub const DASHBOARD: &str = "SELECT * FROM dashboard ORDER BY month, category";
/// A page of the dashboard: 30 rows.
pub const DASHBOARD_30: &str =
    "SELECT * FROM dashboard WHERE month >= date '2025-01-01' ORDER BY month, category LIMIT 30";
/// One row of the dashboard: the one with the greatest revenue.
pub const DASHBOARD_1: &str = "SELECT * FROM dashboard ORDER BY revenue DESC, month, category LIMIT 1";

/// The number of orders of the shop.
pub const ORDERS: u32 = 600_000;
/// The number of orders of a small shop, whose dashboard takes about a twentieth of the time.
pub const FEW_ORDERS: u32 = 30_000;
/// The text of the script that has the number of orders. [`fill`] replaces it.
const IN_SCRIPT: &str = "generate_series(1, 600000)";

/// Creates the tables of the shop, with this many orders.
pub fn fill(stage: &Stage, orders: u32) {
    let script = include_str!("../../../examples/shop.sql");
    assert_eq!(script.matches(IN_SCRIPT).count(), 1, "the script has its {ORDERS} orders in one place");
    stage.execute(&script.replace(IN_SCRIPT, &format!("generate_series(1, {orders})")));
    // VACUUM must be the only statement of its message.
    stage.execute("VACUUM");
    stage.execute("CHECKPOINT");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the number of orders in the script changes, so that `fill` would not find it.
    #[test]
    fn the_script_has_the_orders() {
        let script = include_str!("../../../examples/shop.sql");
        assert_eq!(script.matches(IN_SCRIPT).count(), 1);
        assert_eq!(IN_SCRIPT, format!("generate_series(1, {ORDERS})"));
    }
}
