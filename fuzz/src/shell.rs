//! Just enough of a shell's grammar (POSIX.1-2024, XCU 2.3) to see what a command consists of.

/// What a command consists of, as a shell reads it.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Shape {
    /// The words of the first line; quotes keep one together.
    pub(crate) words: usize,
    /// Everything outside of quotes and here-documents that is not a plain character of a word, in
    /// order.
    pub(crate) special: String,
    /// A quote or a here-document that does not end.
    pub(crate) open: bool,
}

/// The shape of some text.
pub(crate) fn shape(text: &str) -> Shape {
    let mut shape = Shape::default();
    let mut rest = text;
    let mut in_word = false;
    let mut first_line = true;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if let Some(body) = rest.strip_prefix("<'EOF'\n").filter(|_| c == '<') {
            shape.special.push_str("<<\n");
            first_line = false;
            rest = after_document(body).unwrap_or_else(|| {
                shape.open = true;
                ""
            });
            continue;
        }
        if c == '\'' {
            let quoted = rest.split_once('\'');
            shape.open |= quoted.is_none();
            rest = quoted.map_or("", |(_, after)| after);
        } else if !is_plain(c) && c != ' ' {
            shape.special.push(c);
        }
        first_line &= c != '\n';
        let separates = c == ' ' || c == '\n';
        shape.words += usize::from(first_line && !separates && !in_word);
        in_word = !separates;
    }
    shape
}

/// What stands behind the end of a here-document.
fn after_document(body: &str) -> Option<&str> {
    let (_, after) = body.split_once("\nEOF")?;
    (after.is_empty() || after.starts_with('\n')).then_some(after)
}

/// What means nothing to a shell, wherever it stands in a word.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.:,/+@%=".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_out_shows() {
        let of = |text| {
            let Shape { words, special, .. } = shape(text);
            (words, special)
        };
        assert_eq!(of("ip link add 'a; b'"), (4, String::new()));
        assert_eq!(of("ip link add a; rm b"), (6, ";".into()));
        assert_eq!(of("nft 'a'; rm 'b'"), (4, ";".into()));
        assert_eq!(of("nft $(rm)"), (2, "$()".into()));
        assert_eq!(of("a b\nc d"), (2, "\n".into()));
        assert_eq!(of("nft -f - <<'EOF'\n$(x)\nEOF\nb"), (3, "<<\n\n".into()));
        assert!(shape("nft 'a").open);
        assert!(shape("nft <<'EOF'\na\nEOFx\n").open);
    }
}
