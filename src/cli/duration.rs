//! Durations on the command line: `90d`, `1h30m`, `10s`.

use std::time::Duration;

/// Reads a duration: whole numbers with a unit (`d`, `h`, `m`, `s`), largest first; a bare `0` too.
/// `None` for anything else.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)].into_iter();
    let (mut rest, mut seconds) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        // `find` goes on where it stopped, so a unit comes once and after the larger ones.
        let (unit, factor) = units.find(|(unit, _)| after.starts_with(unit))?;
        seconds = number.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(seconds)?;
        rest = &after[unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in
            [("0", 0), ("0s", 0), ("10s", 10), ("90d", 7_776_000), ("1h30m", 5_400), ("1d1s", 86_401)]
        {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "10", "s", "1x", "1s1h", "1h1h", "-1s", "1.5h", "1 h", "1h ", "99999999999999999999d"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
