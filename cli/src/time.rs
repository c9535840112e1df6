//! Times and ages as people give and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// A moment: RFC 3339 with any offset, or only its date; seconds since 1970; or, as `10m` or `1h30m`, so
/// long before `now`. Without an offset a time is UTC.
pub(crate) fn moment(text: &str, now: SystemTime) -> anyhow::Result<SystemTime> {
    let wrong = || {
        format!("`{text}` is neither a time such as 2026-01-31T12:00:00Z nor an age such as 10m")
    };
    let seconds = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if seconds && !text.is_empty() {
        let since = text
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        return since
            .and_then(|since| UNIX_EPOCH.checked_add(since))
            .with_context(wrong);
    }
    if let Ok(age) = humantime::parse_duration(text) {
        return now.checked_sub(age).with_context(wrong);
    }
    let (local, east) = split_offset(text).with_context(wrong)?;
    let local = match local.len() {
        10 => format!("{local}T00:00:00"),
        _ => local.to_ascii_uppercase(),
    };
    let moment = humantime::parse_rfc3339_weak(&local).with_context(wrong)?;
    let utc = match east {
        Offset::East(offset) => moment.checked_sub(offset),
        Offset::West(offset) => moment.checked_add(offset),
    };
    utc.with_context(wrong)
}

/// How far a clock is ahead of UTC, or behind it.
enum Offset {
    East(Duration),
    West(Duration),
}

/// Takes `Z` or `+02:00` off the end of a time.
fn split_offset(text: &str) -> anyhow::Result<(&str, Offset)> {
    let utc = Offset::East(Duration::ZERO);
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Ok((local, utc));
    }
    // A date has dashes as well, so only what follows a time of day is an offset.
    let day = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let Some(at) = text[day..].find(['+', '-']).map(|at| day + at) else {
        return Ok((text, utc));
    };
    let (local, offset) = text.split_at(at);
    let (sign, offset) = offset.split_at(1);
    let parts = offset.split_once(':');
    let parts = parts.and_then(|(h, m)| Some((h.parse::<u64>().ok()?, m.parse::<u64>().ok()?)));
    match parts {
        Some((hours, minutes)) if hours < 24 && minutes < 60 => {
            let offset = Duration::from_secs(hours * HOUR_S + minutes * MINUTE_S);
            let offset = match sign {
                "+" => Offset::East(offset),
                _ => Offset::West(offset),
            };
            Ok((local, offset))
        }
        _ => bail!("`{offset}` is no offset"),
    }
}

/// How long ago a second was, in the words of `docker ps`; the future counts as now.
pub(crate) fn age(unix_s: u64, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    words(now.as_secs().saturating_sub(unix_s))
}

fn words(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / MINUTE_S, seconds / HOUR_S, seconds / DAY_S);
    if seconds < 1 {
        "Less than a second".to_owned()
    } else if seconds == 1 {
        "1 second".to_owned()
    } else if minutes < 1 {
        format!("{seconds} seconds")
    } else if minutes == 1 {
        "About a minute".to_owned()
    } else if hours < 1 {
        format!("{minutes} minutes")
    } else if hours == 1 {
        "About an hour".to_owned()
    } else if hours < 48 {
        format!("{hours} hours")
    } else if days < 14 {
        format!("{days} days")
    } else if days < 60 {
        format!("{} weeks", days / 7)
    } else if days < 2 * 365 {
        format!("{} months", days / 30)
    } else {
        format!("{} years", days / 365)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00",
            "2026-01-31T12:00:00.000+00:00",
            "2026-01-31T14:30:00+02:30",
            "2026-01-31T07:00:00-05:00",
            "2026-01-30T23:30:00-12:30",
            "1769860800",
            "1769860800.0",
        ] {
            let read = moment(text, SystemTime::now());
            assert_eq!(read.ok(), Some(noon), "{text}");
        }
        let midnight = moment("2026-01-31", noon).unwrap();
        assert_eq!(
            noon.duration_since(midnight).unwrap().as_secs(),
            12 * HOUR_S
        );
        for (text, seconds) in [("10m", 600), ("1h30m", 5400), ("90s", 90)] {
            assert_eq!(
                moment(text, noon).unwrap(),
                noon - Duration::from_secs(seconds)
            );
        }
    }

    #[test]
    fn what_is_no_moment() {
        for bad in [
            "",
            ".",
            "1.2.3",
            "yesterday",
            "2026-13-01",
            "2026-01-31T12:00:00+2",
            "2026-01-31T12:00:00+24:00",
            "-10m",
            "99999999999999999999",
            "99999999999999999y",
            "2026-01-31T12:00:00+é1:00",
        ] {
            let read = moment(bad, SystemTime::now());
            let said = read.expect_err(bad).to_string();
            assert!(said.contains(&format!("`{bad}`")), "{said}");
        }
    }

    #[test]
    fn ages_in_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (300, "5 minutes"),
            (3600, "About an hour"),
            (2 * HOUR_S, "2 hours"),
            (3 * DAY_S, "3 days"),
            (21 * DAY_S, "3 weeks"),
            (90 * DAY_S, "3 months"),
            (800 * DAY_S, "2 years"),
        ] {
            assert_eq!(words(seconds), text);
        }
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(age(70, now), "30 seconds");
        assert_eq!(age(101, now), "Less than a second");
    }
}
