//! Computes from the number of verified hits how many of all hits may be wrong, for the view `cache_verification`. A hit is
//! *verified* if its query was run again and the results were compared (`query/verify.rs`).
//!
//! If no hit of `n` was wrong, the share of wrong hits is at most 3/n with a confidence of 95 %: the *rule of three*. If `d` hits
//! were wrong, the upper limit of a Poisson distribution takes the place of 3, in the approximation of Wilson and Hilferty.

/// An upper limit of the share of wrong hits: at most `thousandths / 1000` of `hits` hits are wrong.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    thousandths: u64,
    hits: u64,
}

impl Bound {
    /// Returns the limit for `hits` verified hits, of which `wrong` were wrong. None if they show nothing: all hits may be wrong.
    pub fn of(hits: u64, wrong: u64) -> Option<Self> {
        /// The quantile of the normal distribution for 95 %.
        const QUANTILE: f64 = 1.645;
        let limit = match wrong {
            0 => 3.0,
            _ => {
                let next = wrong as f64 + 1.0;
                let root = 1.0 - 1.0 / (9.0 * next) + QUANTILE / (3.0 * next.sqrt());
                next * root.powi(3)
            }
        };
        let thousandths = (limit * 1000.0).ceil() as u64;
        (u128::from(thousandths) < u128::from(hits) * 1000).then_some(Self { thousandths, hits })
    }

    /// Returns the least share of right hits, rounded down, as a text such as `at least 99.97 %`.
    pub fn consistency(self) -> String {
        let digits = (self.nines() as u32).saturating_sub(1);
        let unit = 10_u128.pow(digits);
        let all = u128::from(self.hits) * 1000;
        let parts = (all - u128::from(self.thousandths)) * 100 * unit / all;
        let (whole, fraction) = (parts / unit, parts % unit);
        match digits {
            0 => format!("at least {whole} %"),
            _ => format!("at least {whole}.{fraction:0digits$} %", digits = digits as usize),
        }
    }

    /// Returns how many nines the least share of right hits has: 3 for 99.9 %. Rounded down to a tenth.
    pub fn nines(self) -> f64 {
        let share = self.thousandths as f64 / (self.hits as f64 * 1000.0);
        // The addition makes up for rounding errors of the logarithm.
        (-share.log10() * 10.0 + 1e-9).floor().max(0.0) / 10.0
    }
}
