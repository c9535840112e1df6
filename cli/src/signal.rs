//! Signals by name.

use rustix::process::Signal;

/// As kill(1) calls them, without `SIG`.
const NAMES: [(&str, Signal); 31] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("STKFLT", Signal::STKFLT),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("VTALRM", Signal::VTALARM),
    ("PROF", Signal::PROF),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("PWR", Signal::POWER),
    ("SYS", Signal::SYS),
];

/// A signal by its name, with or without `SIG`, or by its number.
pub(crate) fn parse(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().find(|(known, _)| *known == name);
    if let Some((_, signal)) = named {
        return Ok(*signal);
    }
    let signal = text.parse().ok().and_then(Signal::from_named_raw);
    signal.ok_or_else(|| {
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        format!(
            "there is no signal `{text}`: give a number from 1 to {}, or one of {}",
            names.len(),
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let numbers = NAMES.iter().map(|(_, signal)| signal.as_raw());
        assert!(numbers.eq(1..=31), "in order, none left out");
        for text in ["TERM", "SIGTERM", "sigterm", "term", "15"] {
            assert_eq!(parse(text).unwrap(), Signal::TERM, "{text}");
        }
        assert_eq!(parse("9").unwrap(), Signal::KILL);
        assert_eq!(parse("SIGIO").unwrap().as_raw(), 29);
        let said = parse("SIGNONE").unwrap_err();
        assert!(
            said.contains("`SIGNONE`") && said.contains("TERM"),
            "{said}"
        );
        for bad in ["", "SIG", "0", "-1", "32", "15 ", "SIG15", "99999999999"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
