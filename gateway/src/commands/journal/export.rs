//! `fieldgate journal export`: readings and gaps in a file that another machine can read and check.
//!
//! ```text
//! {"export":1,"node":"gateway-1","lanes":[{"class":"alarm","journal":"…32 hex…","oldest":1,"next":7}, …]}
//! {"id":"…32 hex…/1","class":"alarm","reading":{…as `dump --json`…},"encoded":"…Base64 of the reading as it is delivered…"}
//! {"gap":"…32 hex…/3-5","class":"bulk","first":3,"last":5,"reason":2,"captured":[…earliest, latest in ms…]}
//! {"end":true,"readings":6,"gaps":1,"sha256":"…of all bytes before this line…"}
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use aws_lc_rs::digest;
use fieldgate_adapters::reading::Reading;
use fieldgate_proto::{link::Class, time::Now};
use serde_json::{Value, json};

use super::{Files, dump, storage};
use crate::{
    cli::{JournalArgs, JournalFilter},
    commands::{Failure, print},
    runtime::journal,
    sinks::{JournalText, json},
};

/// The file, and the hash of what is in it.
struct Export<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    hash: digest::Context,
}

impl Export<'_> {
    fn line(&mut self, line: &Value) -> Result<(), Failure> {
        let mut text = line.to_string();
        text.push('\n');
        self.hash.update(text.as_bytes());
        self.file
            .write_all(text.as_bytes())
            .map_err(|error| Failure::chain(&self.path.display().to_string(), &error))
    }
}

pub(super) fn run(args: &JournalArgs, filter: &JournalFilter, path: &Path) -> Result<(), Failure> {
    let files = Files::open(args)?;
    let failed = |error: std::io::Error| Failure::chain(&path.display().to_string(), &error);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mut export = Export {
        path,
        file: BufWriter::new(file),
        hash: digest::Context::new(&digest::SHA256),
    };
    let mut ids = Vec::new();
    let (mut lanes, mut gaps) = (Vec::new(), Vec::new());
    for lane in &files.lanes {
        let (recovered, _) = journal::recover(
            &lane.directory,
            lane.class,
            lane.settings,
            (&[], files.key.as_ref()),
        )
        .map_err(storage)?;
        let view = recovered.view(Now::default());
        let id = JournalText(recovered.id()).to_string();
        lanes.push(json!({
            "class": lane.class.name(), "journal": id, "oldest": view.oldest, "next": view.committed + 1,
        }));
        gaps.extend(view.gaps.into_iter().map(|gap| {
            json!({
                "gap": format!("{id}/{}-{}", gap.first, gap.last),
                "class": lane.class.name(),
                "first": gap.first,
                "last": gap.last,
                "reason": gap.reason.code(),
                "captured": gap.captured.times().map(|(earliest, latest)| [earliest, latest]),
            })
        }));
        ids.push((lane.class, id));
    }
    export.line(&json!({"export": 1, "node": files.node, "lanes": lanes}))?;
    let mut readings = 0_u64;
    dump::for_each_reading(&files, filter, |lane, segment, sequence, reading| {
        let reading = reading.map_err(|error| {
            Failure::new(format!("{}: reading {sequence}: {error}", segment.name))
                .hint("`fieldgate journal verify` says what is damaged; leave it out with --from and --to")
        })?;
        readings += 1;
        export.line(&entry(id_of(&ids, lane.class), sequence, &reading)?)
    })?;
    for gap in &gaps {
        export.line(gap)?;
    }
    let hash = export.hash.clone().finish();
    let hash = data_encoding::HEXLOWER.encode(hash.as_ref());
    export.line(&json!({"end": true, "readings": readings, "gaps": gaps.len(), "sha256": hash}))?;
    let file = export
        .file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    print(&format!(
        "{readings} readings and {} gaps written to {}\n",
        gaps.len(),
        path.display()
    ))
}

fn id_of(ids: &[(Class, String)], class: Class) -> &str {
    let found = ids.iter().find(|(of, _)| *of == class);
    found.map_or("", |(_, id)| id)
}

fn entry(journal: &str, sequence: u64, reading: &Reading<'_>) -> Result<Value, Failure> {
    let mut line = Vec::new();
    json::journal_line(&mut line, sequence, reading);
    let shown: Value = serde_json::from_slice(&line).map_err(|error| Failure::chain("export", &error))?;
    let mut encoded = Vec::new();
    reading
        .encode(&mut encoded)
        .map_err(|error| Failure::chain("export", &error))?;
    Ok(json!({
        "id": format!("{journal}/{sequence}"),
        "class": shown["class"],
        "reading": shown,
        "encoded": data_encoding::BASE64.encode(&encoded),
    }))
}
