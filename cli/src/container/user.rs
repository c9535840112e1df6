//! As whom a container's program runs.

use std::path::Path;

use anyhow::{Context, bail};

use super::overlay::Overlay;

/// A user or group with this number or less can be written in a record, as Docker has it.
const ID_MAX: u32 = i32::MAX.cast_unsigned();
/// Longest `/etc/passwd` or `/etc/group` of an image, bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Numbers of a user, as an image has them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group is one of them, so that a program that changes it does not leave it.
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) home: String,
}

/// Says what is wrong with `USER[:GROUP]`, as far as no image is needed for that.
pub(crate) fn check(text: &str) -> anyhow::Result<()> {
    let (user, group) = split(text);
    for (what, part) in [("user", Some(user)), ("group", group)] {
        let Some(part) = part else { continue };
        if part.is_empty() || part.contains(|c: char| c == ':' || c.is_control()) {
            bail!("user `{text}` is not USER[:GROUP]: it has no {what}");
        }
        number(part).with_context(|| format!("user `{text}`"))?;
    }
    Ok(())
}

/// Finds `USER[:GROUP]`, names or numbers, in a container's mounted root filesystem; none is root.
///
/// As by Docker: a number needs no entry, a name does. With no group given, it is in all those that
/// `/etc/group` has it in.
pub(crate) fn resolve(text: Option<&str>, root: &Overlay) -> anyhow::Result<User> {
    let read = |path: &str| -> anyhow::Result<String> {
        let bytes = root.read_inside(Path::new(path), FILE_BYTES_MAX)?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    let text = text.unwrap_or("0");
    find(text, &read("/etc/passwd")?, &read("/etc/group")?)
        .with_context(|| format!("can't run as user `{text}`"))
}

fn find(text: &str, passwd: &str, group: &str) -> anyhow::Result<User> {
    let (user, wanted) = split(text);
    let uid = number(user)?;
    // A user may be called by a number; then the name counts, as everywhere else.
    let matches = |entry: &Account<'_>| entry.name == user || uid == Some(entry.uid);
    let account = passwd.lines().filter_map(Account::parse).find(matches);
    let (uid, gid, name, home) = match (account, uid) {
        (Some(account), _) => (account.uid, account.gid, Some(account.name), account.home),
        (None, Some(uid)) => (uid, 0, None, ""),
        (None, None) => bail!("the image's /etc/passwd has no user `{user}`"),
    };
    let groups = || group.lines().filter_map(Group::parse);
    let (gid, others) = match wanted {
        Some(wanted) => (find_group(wanted, groups())?, Vec::new()),
        None => {
            let member = |group: &Group<'_>| group.members.split(',').any(|m| Some(m) == name);
            (
                gid,
                groups().filter(member).map(|group| group.gid).collect(),
            )
        }
    };
    let mut additional_gids = vec![gid];
    for other in others {
        if !additional_gids.contains(&other) {
            additional_gids.push(other);
        }
    }
    let home = if home.starts_with('/') { home } else { "/" };
    Ok(User {
        uid,
        gid,
        additional_gids,
        home: home.to_owned(),
    })
}

fn find_group<'g>(
    wanted: &str,
    mut groups: impl Iterator<Item = Group<'g>>,
) -> anyhow::Result<u32> {
    let gid = number(wanted)?;
    let found = groups.find(|group| group.name == wanted || gid == Some(group.gid));
    found
        .map(|group| group.gid)
        .or(gid)
        .with_context(|| format!("the image's /etc/group has no group `{wanted}`"))
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    }
}

/// The number that a user or group is given by; none if it is given by name.
fn number(text: &str) -> anyhow::Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= ID_MAX => Ok(Some(id)),
        Ok(_) | Err(_) => bail!("`{text}` is more than {ID_MAX}"),
    }
}

/// A line of `/etc/passwd` (passwd(5)). One that makes no sense is passed over, as by everybody.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        Some(Self {
            name,
            uid: number(uid).ok()??,
            gid: number(gid).ok()??,
            home: fields.nth(1).unwrap_or_default(),
        })
    }
}

/// A line of `/etc/group` (group(5)).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?).ok()??;
        let members = fields.next().unwrap_or_default();
        Some(Self { name, gid, members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n+::::::\nbroken:x:one:1::/:\nhuge:x:4294967295:1::/:\n\
        web:x:1000:1001:Web,,,:/srv/web:/bin/false\n1234:x:77:78::relative:\nbare:x:5:6\n";
    const GROUP: &str =
        "root:x:0:root\nweb:x:1001:\nlog:x:4:sys,web\nwheel:x:10:root,web\nagain:x:1001:web\n";

    fn found(text: &str) -> (u32, u32, Vec<u32>, String) {
        check(text).unwrap();
        let user = find(text, PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.additional_gids, user.home)
    }

    #[test]
    fn users_and_groups_by_name_and_number() {
        let is = |uid, gid, gids: &[u32], home: &str| (uid, gid, gids.to_vec(), home.to_owned());
        assert_eq!(found("0"), is(0, 0, &[0, 10], "/root"));
        assert_eq!(found("root"), found("0"));
        assert_eq!(found("web"), is(1000, 1001, &[1001, 4, 10], "/srv/web"));
        assert_eq!(found("1000"), found("web"));
        assert_eq!(found("web:log"), is(1000, 4, &[4], "/srv/web"));
        assert_eq!(found("web:99"), is(1000, 99, &[99], "/srv/web"));
        assert_eq!(found("99"), is(99, 0, &[0], "/"));
        assert_eq!(found("99:wheel"), is(99, 10, &[10], "/"));
        assert_eq!(found("1234"), is(77, 78, &[78], "/"));
        assert_eq!(found("bare"), is(5, 6, &[6], "/"));
    }

    #[test]
    fn who_is_not_there_is_named() {
        for (text, said) in [
            ("nobody", "no user `nobody`"),
            ("web:nobody", "no group `nobody`"),
            ("broken", "no user `broken`"),
            ("huge", "no user `huge`"),
        ] {
            let error = find(text, PASSWD, GROUP).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn bad_ones_are_refused_before() {
        for bad in [
            "",
            ":",
            "web:",
            ":web",
            "a:b:c",
            "a\nb",
            "4294967295",
            "web:2147483648",
        ] {
            let said = format!("{:#}", check(bad).unwrap_err());
            assert!(said.contains(&format!("`{bad}`")), "{said}");
        }
    }
}
