//! What was done can be looked up, and printed as a script that does it again.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use mydocker_tests::Host;

#[test]
fn what_was_done_is_listed_and_replayed() {
    let Some(host) = Host::new() else { return };
    assert_eq!(host.ok("network log --format json"), "[]\n");
    let web = host.sandbox("web");
    let plan = host.ok("network create --subnet 10.1.0.0/24 --dry-run=script n");
    host.ok("network create --subnet 10.1.0.0/24 n");
    host.connect("n", "web", &web, "-p 8080:80");
    host.fails(1, "network create --subnet 10.1.0.0/24 n");
    host.sh("ip link add name other type veth peer name squatter");
    host.fails(1, "network create --subnet 10.2.0.0/24 other");
    host.ok("network disconnect n web");
    let table = host.ok("network log");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines.len(),
        4,
        "a refused request is no transaction\n{table}"
    );
    for (line, (number, what)) in lines[1..].iter().zip([
        ("3", "network n added"),
        ("2", "web on n attached"),
        ("1", "web on n detached"),
    ]) {
        assert!(
            line.starts_with(number) && line.contains(what) && line.contains("done"),
            "{line}"
        );
        assert!(
            line.contains("uid 0, pid ") && line.contains("mydocker network"),
            "{line}"
        );
    }
    let json: serde_json::Value =
        serde_json::from_str(&host.ok("network log --format json -n 1")).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(json[0]["outcome"], "committed");
    assert!(json[0]["took_us"].as_u64().unwrap() > 0);
    assert_eq!(host.ok("network log --replay 3 --dry-run"), plan);
    let said = host.fails(1, "network log --replay 4 --dry-run");
    assert!(said.contains("3 are kept"), "{said}");
    host.fails(2, "network log --replay 3");
}

/// Nothing else depends on it: it can be lost, damaged or unwritable.
#[test]
fn losing_it_loses_nothing_else() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.1.0.0/24 n");
    let log = host.dir().join("run/network/history.log");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, format!("{}\n{{\"torn", text)).unwrap();
    host.ok("network create --subnet 10.2.0.0/24 m");
    let output = host.mydocker("network log");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("1 line of the history can't be read"),
        "{said}"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 3);
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let output = host.mydocker("network remove m");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("not written into the history"),
        "{said}"
    );
    std::fs::remove_dir(&log).unwrap();
    host.ok("network remove n");
    assert_eq!(host.ok("network check"), "");
}
