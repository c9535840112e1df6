//! `mydocker image …`

use std::time::{Duration, UNIX_EPOCH};

use mydocker::container::Containers;
use mydocker::image::{Digest, Image, ImageArchive, ImageConfig, ImageName, Layer};
use serde::Serialize;

use super::App;
use crate::args::{Format, ImageCommand, Import, InspectImages, ListImages, RemoveImages};
use crate::failure::{Failure, told, warn};
use crate::report;

pub(super) fn run(app: &App, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Import(args) => import(app, &args),
        ImageCommand::Ls(args) => ls(app, &args),
        ImageCommand::Rm(args) => rm(app, &args),
        ImageCommand::Inspect(args) => inspect(app, &args),
    }
}

fn import(app: &App, args: &Import) -> Result<(), Failure> {
    let containers = app.containers()?;
    let imported = containers.images().import(&args.file, args.name.as_ref())?;
    for image in &imported {
        told(report::line(&image.name));
    }
    sweep(&containers);
    Ok(())
}

/// Removes what had a name that another image has now, if it is nobody's.
pub(super) fn sweep(containers: &Containers) {
    if let Err(error) = containers.images().prune(|| containers.image_users()) {
        warn(format!(
            "done, but what was there before is not removed: {error:#}"
        ));
    }
}

/// An image as `ls` shows it.
#[derive(Serialize)]
struct Row {
    name: ImageName,
    /// None while there is only an archive.
    id: Option<Digest>,
    created: String,
    bytes: u64,
    layers: usize,
}

impl Row {
    fn of_image(image: &Image) -> Self {
        Self {
            name: image.name.clone(),
            id: Some(image.id),
            created: time(image.created_unix_s),
            bytes: image.bytes(),
            layers: image.layers.len(),
        }
    }

    fn of_archive(archive: &ImageArchive) -> Self {
        Self {
            name: archive.name.clone(),
            id: None,
            created: time(archive.modified_unix_s),
            bytes: archive.bytes,
            layers: 0,
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.id.map_or_else(|| "-".to_owned(), |id| id.short()),
            self.created.clone(),
            size(self.bytes),
        ]
    }
}

fn ls(app: &App, args: &ListImages) -> Result<(), Failure> {
    let containers = app.containers()?;
    let listing = containers.images().list()?;
    listing.damaged.iter().for_each(warn);
    let images = listing.images.iter().map(Row::of_image);
    let mut rows: Vec<Row> = images
        .chain(listing.archives.iter().map(Row::of_archive))
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    if args.quiet {
        let mut ids = rows.iter().filter_map(|row| row.id);
        return ids.try_for_each(|id| Ok(report::line(id.short())?));
    }
    match args.format {
        Format::Json => report::json(&rows)?,
        Format::Table => report::table(
            &["NAME", "ID", "CREATED", "SIZE"],
            &rows.iter().map(Row::cells).collect::<Vec<_>>(),
        )?,
    }
    Ok(())
}

fn rm(app: &App, args: &RemoveImages) -> Result<(), Failure> {
    let containers = app.containers()?;
    for text in &args.image {
        let users = || containers.image_users();
        for name in containers.images().remove(text, args.force, users)? {
            told(report::line(name));
        }
    }
    Ok(())
}

/// An image as `inspect` shows it.
#[derive(Serialize)]
struct View {
    name: ImageName,
    id: Digest,
    created: String,
    bytes: u64,
    layers: Vec<Layer>,
    config: ImageConfig,
}

fn inspect(app: &App, args: &InspectImages) -> Result<(), Failure> {
    let containers = app.containers()?;
    let mut views = Vec::new();
    for text in &args.image {
        let image = containers.images().find(text)?;
        views.push(View {
            created: time(image.created_unix_s),
            bytes: image.bytes(),
            name: image.name,
            id: image.id,
            layers: image.layers,
            config: image.config,
        });
    }
    Ok(report::json(&views)?)
}

fn time(unix_s: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(unix_s));
    humantime::format_rfc3339_seconds(time.unwrap_or(UNIX_EPOCH)).to_string()
}

/// As Docker shows it: three digits, in powers of 1000.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    let mut unit_bytes = 1000;
    for unit in UNITS {
        if bytes < unit_bytes * 1000 || unit == "PB" {
            if bytes < 1000 {
                break;
            }
            let (whole, tenth) = (bytes / unit_bytes, bytes % unit_bytes / (unit_bytes / 10));
            return if whole < 100 {
                format!("{whole}.{tenth}{unit}")
            } else {
                format!("{whole}{unit}")
            };
        }
        unit_bytes *= 1000;
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (4_261_234, "4.2MB"),
            (123_456_789, "123MB"),
            (u64::MAX, "18446PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert!(time(u64::MAX).starts_with("1970"));
    }
}
