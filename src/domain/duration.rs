//! Durations as Kubernetes users write them: `90s`, `10m`, `1h30m`, `720h`, `90d`.

use std::time::Duration;

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("isn't a duration; write whole numbers with d, h, m or s, largest first, such as 1h30m")]
pub struct DurationError;

/// Parses `1d2h3m4s` with any of the parts left out, in that order.
///
/// # Errors
/// [`DurationError`] for anything else, also for one that is longer than 100 years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
    const MOST: u64 = 100 * 365 * 86_400;
    // Nothing needs no unit.
    let mut rest = if text == "0" { "0s" } else { text };
    let mut total: u64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(DurationError)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.chars().next().ok_or(DurationError)?;
        let (_, secs) = units.by_ref().find(|(u, _)| *u == unit).ok_or(DurationError)?;
        let number: u64 = number.parse().map_err(|_| DurationError)?;
        total = number.checked_mul(*secs).and_then(|n| n.checked_add(total)).ok_or(DurationError)?;
        rest = tail.get(unit.len_utf8()..).unwrap_or("");
    }
    if text.is_empty() || total > MOST {
        return Err(DurationError);
    }
    Ok(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, secs) in [
            ("0s", 0),
            ("0", 0),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("720h", 2_592_000),
            ("90d", 7_776_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for bad in [
            "",
            "5",
            "m",
            "1.5h",
            "-1h",
            "1m1h",
            "1h1h",
            "1w",
            " 1h",
            "99999999999999999999h",
            "200000d",
            "1µs",
        ] {
            assert_eq!(parse(bad), Err(DurationError), "{bad}");
        }
    }
}
