//! What `nft list` prints, in an order that does not depend on the kernel's.

use std::process::Command;

/// The version of nft whose listings are written down: others print the same rules in other words.
pub const NFT: &str = "1.0.6";

/// The version of nft that is installed, if it is another one than [`NFT`].
#[must_use]
pub fn other_nft() -> Option<String> {
    let output = Command::new("nft").arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let known = said.starts_with(&format!("nftables v{NFT} "));
    (!known).then_some(said)
}

/// A listing with the elements of each set sorted, one to a line: a hash keeps them in an order
/// that changes with its seed.
#[must_use]
pub fn sorted(listing: &str) -> String {
    const OPEN: &str = "elements = { ";
    let mut rest = listing;
    let mut all = String::new();
    while let Some((before, list)) = rest.split_once(OPEN) {
        let (list, after) = list.split_once(" }").unwrap_or((list, ""));
        let mut elements: Vec<&str> = list.split(',').map(str::trim).collect();
        elements.sort_unstable();
        all.push_str(before);
        all.push_str(OPEN);
        all.push_str(&elements.join(",\n\t\t\t     "));
        all.push_str(" }");
        rest = after;
    }
    all + rest
}

#[cfg(test)]
mod tests {
    use super::sorted;

    #[test]
    fn elements_have_an_order() {
        let set = |elements: &str| format!("\tset s {{\n\t\telements = {{ {elements} }}\n\t}}\n");
        let text = |elements: &str| format!("table t {{\n{}{}}}\n", set(elements), set("x"));
        let lines = text("a,\n\t\t\t     b,\n\t\t\t     c");
        assert_eq!(sorted(&text("c, a,\n\t\t\t     b")), lines);
        assert_eq!(sorted(&lines), lines);
        assert_eq!(sorted("chain c {\n}\n"), "chain c {\n}\n");
    }
}
