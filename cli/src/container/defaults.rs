//! What a container gets from its image, unless it was asked for otherwise: as with Docker.

use std::path::{Component, Path, PathBuf};

use super::spec::Spec;
use crate::image::ImageConfig;

/// Fills in what `spec` leaves to the image. After that its command is all of the command, the entry
/// point first.
pub(crate) fn fill(spec: &mut Spec, image: &ImageConfig) {
    fill_command(spec, image);
    fill_env(spec, image);
    if spec.workdir.is_none() {
        spec.workdir = Some(absolute(&image.working_dir));
    }
    if spec.user.is_none() && !image.user.is_empty() {
        spec.user = Some(image.user.clone());
    }
}

/// A command takes the place of the image's, and an entry point that of both.
fn fill_command(spec: &mut Spec, image: &ImageConfig) {
    if spec.entrypoint.is_none() {
        spec.entrypoint = Some(image.entrypoint.clone());
        if spec.command.is_empty() {
            spec.command.clone_from(&image.cmd);
        }
    }
    let entrypoint = spec.entrypoint.iter().flatten().cloned();
    spec.command = entrypoint.chain(spec.command.drain(..)).collect();
}

/// The image's variables, but for those that were given.
fn fill_env(spec: &mut Spec, image: &ImageConfig) {
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let given: Vec<String> = spec.env.iter().map(|variable| key(variable)).collect();
    let kept = |variable: &&String| {
        // One without a value, which nobody could have set, is as good as none.
        variable.find('=').is_some_and(|at| at > 0) && !given.contains(&key(variable))
    };
    let kept: Vec<String> = image.env.iter().filter(kept).cloned().collect();
    spec.env.splice(0..0, kept);
}

/// Images may say `app` and mean `/app`.
fn absolute(path: &str) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => absolute.push(part),
            Component::ParentDir => {
                absolute.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(ToOwned::to_owned).collect()
    }

    /// The command of a container, by the image's entry point and command and by what was asked for.
    fn command(image: (&str, &str), entrypoint: Option<&str>, command: &str) -> Vec<String> {
        let config = ImageConfig {
            entrypoint: words(image.0),
            cmd: words(image.1),
            ..ImageConfig::default()
        };
        let mut spec = Spec::new("box".parse().unwrap());
        spec.entrypoint = entrypoint.map(words);
        spec.command = words(command);
        fill(&mut spec, &config);
        spec.command
    }

    #[test]
    fn commands_and_entry_points_are_those_of_docker() {
        for (image, given, asked, wanted) in [
            (("", ""), None, "", ""),
            (("", "a b"), None, "", "a b"),
            (("", "a b"), None, "c", "c"),
            (("e f", ""), None, "", "e f"),
            (("e f", "a"), None, "", "e f a"),
            (("e f", "a"), None, "c", "e f c"),
            (("e f", "a"), Some("g"), "", "g"),
            (("e f", "a"), Some("g"), "c", "g c"),
            (("e f", "a"), Some(""), "c", "c"),
            (("e f", "a"), Some(""), "", ""),
        ] {
            assert_eq!(
                command(image, given, asked),
                words(wanted),
                "{image:?} {given:?} {asked:?}"
            );
        }
    }

    #[test]
    fn what_is_asked_for_comes_before_what_the_image_says() {
        let config = ImageConfig {
            env: ["A=image", "B=image", "nothing", "=x"]
                .map(Into::into)
                .to_vec(),
            working_dir: "app/../srv".into(),
            user: "www".into(),
            ..ImageConfig::default()
        };
        let mut spec = Spec::new("box".parse().unwrap());
        spec.env = vec!["B=asked".into(), "C=asked".into()];
        fill(&mut spec, &config);
        assert_eq!(spec.env, ["A=image", "B=asked", "C=asked"]);
        assert_eq!(spec.workdir(), Path::new("/srv"));
        assert_eq!(spec.user.as_deref(), Some("www"));
        spec.check().unwrap();

        let mut spec = Spec::new("box".parse().unwrap());
        (spec.workdir, spec.user) = (Some("/".into()), Some("0".into()));
        fill(&mut spec, &config);
        assert_eq!(spec.workdir(), Path::new("/"));
        assert_eq!(spec.user.as_deref(), Some("0"));
    }
}
