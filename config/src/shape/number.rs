//! Numbers: counts, times, sizes.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::{Shape, refuse_type};
use crate::reader::{Context, quote};
use crate::spec::{Form, UNITS, size_text};

/// An integer within bounds.
pub(crate) struct Number<T> {
    min: u64,
    max: u64,
    convert: fn(u64) -> Option<T>,
}

impl<T> Number<T> {
    /// `convert` takes every number within the bounds.
    pub(crate) const fn new(min: u64, max: u64, convert: fn(u64) -> Option<T>) -> Self {
        Self { min, max, convert }
    }
}

/// A count that fits 16 bits.
pub(crate) const fn count_u16(min: u16, max: u16) -> Number<u16> {
    Number::new(min as u64, max as u64, |number| u16::try_from(number).ok())
}

/// A count that fits 32 bits.
pub(crate) const fn count_u32(min: u32, max: u32) -> Number<u32> {
    Number::new(min as u64, max as u64, |number| u32::try_from(number).ok())
}

/// Milliseconds.
pub(crate) const fn millis(min: u64, max: u64) -> Number<Duration> {
    Number::new(min, max, |number| Some(Duration::from_millis(number)))
}

/// Seconds.
pub(crate) const fn seconds(min: u64, max: u64) -> Number<Duration> {
    Number::new(min, max, |number| Some(Duration::from_secs(number)))
}

impl<T> Shape for Number<T> {
    type Value = T;

    fn form(&self) -> Form {
        Form::Integer {
            min: self.min,
            max: self.max,
        }
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<T> {
        let Some(integer) = value.get_ref().as_integer() else {
            refuse_type(value, path, &self.form(), context);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let accepted = number
            .filter(|number| (self.min..=self.max).contains(number))
            .and_then(self.convert);
        if accepted.is_none() {
            let message = format!("`{path}` is {integer}, outside {}..={}", self.min, self.max);
            let unit = unit_of(path);
            let help = if number.is_some_and(|number| number > self.max) {
                format!("choose at most {}{unit}", self.max)
            } else {
                format!("choose at least {}{unit}", self.min)
            };
            context.refuse(path, &value.span(), message, help);
        }
        accepted
    }
}

/// Returns the unit that the name of a key ends in, as it is written after a number.
fn unit_of(path: &str) -> &'static str {
    if path.ends_with("_ms") {
        " ms"
    } else if path.ends_with("_secs") {
        " s"
    } else {
        ""
    }
}

/// A number of bytes within bounds, as an integer or as text with a unit.
pub(crate) struct Size<T> {
    min: u64,
    max: u64,
    convert: fn(u64) -> Option<T>,
}

/// Bytes in 64 bits.
pub(crate) const fn bytes_u64(min: u64, max: u64) -> Size<u64> {
    Size {
        min,
        max,
        convert: Some,
    }
}

/// Bytes in 32 bits.
pub(crate) const fn bytes_u32(min: u32, max: u32) -> Size<u32> {
    Size {
        min: min as u64,
        max: max as u64,
        convert: |number| u32::try_from(number).ok(),
    }
}

impl<T> Shape for Size<T> {
    type Value = T;

    fn form(&self) -> Form {
        Form::Size {
            min: self.min,
            max: self.max,
        }
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<T> {
        let (shown, bytes) = match (value.get_ref().as_integer(), value.get_ref().as_str()) {
            (Some(integer), _) => (
                integer.to_string(),
                u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            ),
            (None, Some(text)) => match parse_size(text) {
                Ok(bytes) => (quote(text), bytes),
                Err(()) => {
                    let message = format!("`{path}` is {}, which is not a size", quote(text));
                    let help = "write whole bytes as a number, or a number and B, KiB, MiB, GiB or TiB: \"64 KiB\"; \
                                these count in steps of 1024, and there are no others";
                    context.refuse(path, &value.span(), message, help);
                    return None;
                }
            },
            (None, None) => {
                refuse_type(value, path, &self.form(), context);
                return None;
            }
        };
        let accepted = bytes
            .filter(|bytes| (self.min..=self.max).contains(bytes))
            .and_then(self.convert);
        if accepted.is_none() {
            let (min, max) = (size_text(self.min), size_text(self.max));
            let is_too_small = bytes.is_some_and(|bytes| bytes < self.min) || shown.starts_with('-');
            let help = if is_too_small {
                format!("choose at least \"{min}\"")
            } else {
                format!("choose at most \"{max}\"")
            };
            context.refuse(
                path,
                &value.span(),
                format!("`{path}` is {shown}, outside {min}..={max}"),
                help,
            );
        }
        accepted
    }
}

/// Reads `64 KiB`; `Ok(None)` is a size beyond 64 bits.
fn parse_size(text: &str) -> Result<Option<u64>, ()> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(());
    }
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(())?;
    Ok(number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor)))
}
