//! Environment variables, as they are given.

use std::{env, ffi::OsString, fs, io::Read, path::Path};

use anyhow::{Context, bail};

/// Longest file of variables, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The variables of Docker's `--env-file` and `--env`, files first: `KEY=VALUE`, or `KEY` alone for the
/// value that this process has, if it has one.
pub fn variables<P: AsRef<Path>>(files: &[P], given: &[String]) -> anyhow::Result<Vec<String>> {
    let ours = |key: &str| env::var_os(key);
    let mut variables = Vec::new();
    for path in files {
        let path = path.as_ref();
        let text = read(path)
            .with_context(|| format!("can't read environment file {}", path.display()))?;
        let read = from_file(&text, &ours)
            .with_context(|| format!("environment file {}", path.display()))?;
        variables.extend(read);
    }
    for variable in given {
        variables.extend(with_value(variable, &ours)?);
    }
    Ok(variables)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = Vec::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("it is longer than {FILE_BYTES_MAX} bytes");
    }
    String::from_utf8(text).context("it is not UTF-8")
}

type Ours<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Values are taken as they stand, quotes and all.
fn from_file(text: &str, ours: Ours<'_>) -> anyhow::Result<Vec<String>> {
    let mut variables = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let key = line.split('=').next().unwrap_or_default();
        if key.is_empty() {
            bail!("line {number}, `{line}`, names no variable");
        }
        if key.contains(char::is_whitespace) {
            bail!("line {number}: the variable `{key}` contains white space");
        }
        variables.extend(with_value(line, ours).with_context(|| format!("line {number}"))?);
    }
    Ok(variables)
}

/// None if it is a name alone and we have no such variable.
fn with_value(variable: &str, ours: Ours<'_>) -> anyhow::Result<Option<String>> {
    if variable.contains('=') {
        return Ok(Some(variable.to_owned()));
    }
    if variable.is_empty() {
        bail!("a variable without a name: give KEY=VALUE, or KEY for the value that is set here");
    }
    let Some(value) = ours(variable) else {
        return Ok(None);
    };
    let Some(value) = value.to_str() else {
        bail!("the value of `{variable}` here is not UTF-8: give {variable}=VALUE");
    };
    Ok(Some(format!("{variable}={value}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn ours(key: &str) -> Option<OsString> {
        match key {
            "HERE" => Some("ours".into()),
            "EMPTY" => Some("".into()),
            "BYTES" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        }
    }

    #[test]
    fn files_are_read_as_by_docker() {
        let text = "\u{feff}# a comment\n\n  A=1\nB=\"x y\" # kept\nHERE\nNOWHERE\nC=\nD=a=b\n  # too\r\nE=1\r\nEMPTY";
        assert_eq!(
            from_file(text, &ours).unwrap(),
            [
                "A=1",
                "B=\"x y\" # kept",
                "HERE=ours",
                "C=",
                "D=a=b",
                "E=1",
                "EMPTY="
            ]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, said) in [
            ("A=1\n=x", "line 2, `=x`"),
            ("export A=1", "`export A`"),
            ("BYTES", "line 1: the value of `BYTES`"),
        ] {
            let error = format!("{:#}", from_file(text, &ours).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
        let none: [&str; 0] = [];
        assert!(variables(&none, &[String::new()]).is_err());
        let missing = variables(&["/no/such/file"], &[]).unwrap_err();
        assert!(format!("{missing:#}").contains("/no/such/file"));
        assert!(variables(&["/dev/zero"], &[]).is_err(), "it has no end");
    }

    #[test]
    fn what_is_given_follows_what_is_in_files() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("env");
        fs::write(&path, "A=file\n").unwrap();
        let given = ["A=given".to_owned(), "NOBODY_HAS_THIS_ONE".to_owned()];
        assert_eq!(variables(&[path], &given).unwrap(), ["A=file", "A=given"]);
    }
}
