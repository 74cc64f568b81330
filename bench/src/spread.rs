//! Median and extremes of a few measurements.

use std::fmt;

use serde::Serialize;

/// Median, lowest and highest; on a shared machine the median of ratios is what can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle value; of an even number the mean of the two in the middle.
    pub(crate) median: f64,
    /// The lowest value.
    pub(crate) lowest: f64,
    /// The highest value.
    pub(crate) highest: f64,
}

impl Spread {
    /// Returns the spread of what there is; `None` for nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        let (lowest, highest) = (*values.first()?, *values.last()?);
        Some(Self {
            median: f64::midpoint(lower, upper),
            lowest,
            highest,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median.abs() {
            small if small < 10.0 => 2,
            middle if middle < 1000.0 => 1,
            _ => 0,
        };
        let Self {
            median,
            lowest,
            highest,
        } = self;
        write!(
            formatter,
            "{median:.digits$} [{lowest:.digits$}..{highest:.digits$}]"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                median: 2.5,
                lowest: 1.0,
                highest: 4.0
            }
        );
        assert!(Spread::of([]).is_none());
    }

    #[test]
    fn large_values_are_shown_without_decimals() {
        assert_eq!(
            Spread::of([27_912.4]).unwrap().to_string(),
            "27912 [27912..27912]"
        );
        assert_eq!(Spread::of([0.251]).unwrap().to_string(), "0.25 [0.25..0.25]");
    }
}
