//! Files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    assert_each_once, positions_file, publish_each, publish_numbers, site_with, wait_drained, wait_sink,
};
use crate::harness::{
    node::json,
    process::{command, run},
    site::Site,
};

#[test]
fn a_full_disk_holds_readings_back_and_the_file_has_each_once_when_there_is_room() {
    let mut site = site_with(
        "[[collector.sink]]\nkind = \"file\"\npath = \"disk/out.jsonl\"\nrotate_bytes = \"16 KiB\"\n",
    );
    // Without the filler there is room for all at once: what waits goes into one write.
    let disk = SmallDisk::mount(&site.collector.dir.join("disk"), "512k");
    let filler = disk.0.join("filler");
    fs::write(&filler, vec![0; 448 << 10]).expect("there is room yet");
    site.start();
    let texts = |range: std::ops::Range<u32>| range.map(|number| format!("{number:0600}"));
    publish_each(&site, texts(0..200));
    site.collector
        .process()
        .wait_for_text("the sink does not take readings");
    let status = wait_sink(&site.collector, 0, "no room", |sink| sink["state"] == "away");
    assert!(
        status["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("o space")),
        "{status}"
    );
    assert!(status["waiting_bytes"].as_u64() > Some(0), "{status}");
    // Killed while there is no room: the start must not need any.
    site.collector.kill();
    site.collector.start();
    fs::remove_file(filler).expect("it is ours");
    let drained = || {
        site.gateway
            .try_status()
            .is_ok_and(|status| status["journal"]["readings"] == 0)
    };
    // An archive takes the closed files away. The disk may fill again between two visits, so only the end can be waited for.
    crate::harness::wait::until("drained while an archive makes room", || {
        for entry in fs::read_dir(&disk.0).expect("it is mounted") {
            let path = entry.expect("it can be read").path();
            if path.file_name().is_some_and(|name| name != "out.jsonl") {
                fs::copy(&path, archived(&site, &path)).expect("room");
                let _ = fs::remove_file(&path);
            }
        }
        if drained() { Ok(()) } else { Err(String::new()) }
    });
    let mut numbers = Vec::new();
    let archive = fs::read_dir(site.collector.dir.join("archive")).expect("there were closed files");
    let archive = archive.map(|entry| entry.expect("it can be read").path());
    for path in archive.chain(files(&disk.0)) {
        numbers.extend(lines(&path).iter().map(|line| {
            line["payload"]
                .as_str()
                .expect("text")
                .trim_start_matches('0')
                .to_owned()
        }));
    }
    let numbers = numbers
        .into_iter()
        .map(|text| if text.is_empty() { "0".to_owned() } else { text });
    assert_each_once(numbers.collect(), 200);
}

#[test]
fn a_collector_restored_from_an_old_backup_doubles_nothing_in_the_file() {
    let mut site = site_with("[[collector.sink]]\nkind = \"file\"\npath = \"out.jsonl\"\n");
    site.collector.append(&super::absent_broker(&site));
    site.start();
    let path = site.collector.dir.join("out.jsonl");
    publish_numbers(&site, 0..10);
    wait_lines(&path, 10);
    site.collector.stop();
    let positions = fs::read(positions_file(&site, "file")).expect("positions are kept");
    let file = fs::read(&path).expect("the file is there");
    site.collector.start();
    publish_numbers(&site, 10..20);
    wait_lines(&path, 20);
    // The positions from the backup, the file as it is.
    site.collector.kill();
    fs::write(positions_file(&site, "file"), &positions).expect("the file is ours");
    site.collector.start();
    publish_numbers(&site, 20..25);
    assert_each_once(numbers(&wait_lines(&path, 25)), 25);
    // Both from the backup: what the gateway still has comes again.
    site.collector.kill();
    fs::write(positions_file(&site, "file"), &positions).expect("the file is ours");
    fs::write(&path, &file).expect("the file is ours");
    site.collector.start();
    assert_each_once(numbers(&wait_lines(&path, 25)), 25);
    // The file from the backup, the positions as they are: told, and nothing doubled.
    site.collector.stop();
    fs::write(&path, &file).expect("the file is ours");
    site.collector.start();
    let status = wait_sink(&site.collector, 0, "told", |sink| sink["warnings"][0].is_string());
    assert!(
        status["warnings"][0]
            .as_str()
            .is_some_and(|text| text.contains("shorter than what was confirmed")),
        "{status}"
    );
    publish_numbers(&site, 25..30);
    let have = numbers(&wait_lines(&path, 15));
    let wanted: Vec<String> = (0..10).chain(25..30).map(|number| number.to_string()).collect();
    assert_eq!(have, wanted);
}

#[test]
fn a_sequence_of_cbor_has_each_reading_once_though_the_collector_is_killed() {
    let mut site = site_with(
        "[[collector.sink]]\nkind = \"file\"\npath = \"out.cbor\"\nformat = \"cbor\"\nfields = [\"device\"]\nrotate_bytes = \"4 KiB\"\n",
    );
    site.start();
    for round in 0..5 {
        publish_numbers(&site, round * 40..(round + 1) * 40);
        site.collector.kill();
        site.collector.start();
    }
    wait_drained(&site);
    let mut bytes = Vec::new();
    for path in files(&site.collector.dir) {
        if path.extension().is_some_and(|extension| extension == "cbor") {
            bytes.extend(fs::read(path).expect("it can be read"));
        }
    }
    // Two entries: id and device. What is not whole would break the pattern.
    let starts = bytes
        .windows(6)
        .filter(|part| part == b"\xa2\x62id\x78\x63" || (part.starts_with(b"\xa2\x62id\x78")))
        .count();
    assert_eq!(starts, 200);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the directory is there");
    entries
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.is_file())
        .collect()
}

fn archived(site: &Site, path: &Path) -> PathBuf {
    let archive = site.collector.dir.join("archive");
    fs::create_dir_all(&archive).expect("the directory is ours");
    archive.join(path.file_name().expect("a name"))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(json).collect()
}

fn numbers(lines: &[Value]) -> Vec<String> {
    lines
        .iter()
        .map(|line| line["payload"].as_str().expect("text").to_owned())
        .collect()
}

fn wait_lines(path: &Path, count: usize) -> Vec<Value> {
    crate::harness::wait::until(&format!("{count} lines"), || {
        let lines = lines(path);
        if lines.len() >= count {
            Ok(lines)
        } else {
            Err(format!("there are {}", lines.len()))
        }
    })
}

/// A file system in memory with a bound, mounted until dropped. Needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "mounting needs root: run the tests as root, or in a container that has CAP_SYS_ADMIN"
        );
        fs::create_dir_all(at).expect("the directory is ours");
        let mut mount = command(&["mount", "-t", "tmpfs", "-o"]);
        run(mount
            .arg(format!("size={size},mode=0700"))
            .arg("fieldgate-test")
            .arg(at))
        .expect(0);
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If a test ends early its collector may still run: the mount then goes with the last user.
        let _ = run(command(&["umount", "--lazy"]).arg(&self.0));
    }
}
