//! Volumes of a pod. Those of ConfigMaps have the kubelet's layout: each key is a link through
//! `..data`, a link to a folder of this version, and a change swaps that one link.

use super::{list, word};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The contents of one ConfigMap by key.
type Contents = BTreeMap<String, Vec<u8>>;

/// The cluster's ConfigMaps, and the volumes that show them.
#[derive(Default)]
pub(crate) struct ConfigMaps {
    maps: RefCell<BTreeMap<String, Contents>>,
    shown: RefCell<Vec<Shown>>,
}

/// A volume that shows a ConfigMap.
struct Shown {
    map: String,
    /// Keys with the paths that show them; empty for all keys by their names.
    items: Vec<(String, String)>,
    folder: PathBuf,
    versions: u32,
}

impl ConfigMaps {
    /// Takes the folders of a folder as ConfigMaps and their files as keys; those that are there
    /// already are replaced whole, and all volumes show the change.
    pub(crate) fn apply(&self, folder: &Path, edit: impl Fn(Vec<u8>) -> Vec<u8>) {
        for map in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let contents = fs::read_dir(map.path()).unwrap().map(Result::unwrap).map(|key| {
                let content = edit(fs::read(key.path()).unwrap());
                (key.file_name().into_string().unwrap(), content)
            });
            let name = map.file_name().into_string().unwrap();
            self.maps.borrow_mut().insert(name, contents.collect());
        }
        for shown in self.shown.borrow_mut().iter_mut() {
            shown.publish(&self.maps.borrow());
        }
    }

    /// Shows a ConfigMap in a folder from now on.
    fn show(&self, source: &Value, folder: PathBuf) {
        let map = word(&source["name"]).to_owned();
        let is_there = self.maps.borrow().contains_key(&map);
        assert!(is_there || source["optional"] == true, "no ConfigMap {map}");
        let items = list(&source["items"])
            .map(|item| (word(&item["key"]).to_owned(), word(&item["path"]).to_owned()));
        let mut shown = Shown { map, items: items.collect(), folder, versions: 0 };
        shown.publish(&self.maps.borrow());
        self.shown.borrow_mut().push(shown);
    }
}

impl Shown {
    /// Writes the ConfigMap's present contents and swaps `..data` to them.
    fn publish(&mut self, maps: &BTreeMap<String, Contents>) {
        let nothing = Contents::new();
        let contents = maps.get(&self.map).unwrap_or(&nothing);
        let files: Contents = match self.items.is_empty() {
            true => contents.clone(),
            false => self
                .items
                .iter()
                .filter_map(|(key, path)| Some((path.clone(), contents.get(key)?.clone())))
                .collect(),
        };
        let data = self.folder.join("..data");
        let before = fs::read_link(&data).ok().map(|old| self.folder.join(old));
        let unchanged = |old: &PathBuf| {
            fs::read_dir(old).unwrap().count() == files.len()
                && files
                    .iter()
                    .all(|(name, text)| fs::read(old.join(name)).ok() == Some(text.clone()))
        };
        if before.as_ref().is_some_and(unchanged) {
            return;
        }
        self.versions += 1;
        let version = format!("..2026_01_01_00_00_{:02}.1", self.versions);
        fs::create_dir(self.folder.join(&version)).unwrap();
        for (name, text) in &files {
            fs::write(self.folder.join(&version).join(name), text).unwrap();
        }
        symlink(&version, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), &data).unwrap();
        for name in files.keys() {
            let link = self.folder.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        let gone = fs::read_dir(&self.folder).unwrap().map(Result::unwrap).filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            !name.starts_with("..") && !files.contains_key(&name)
        });
        for entry in gone {
            fs::remove_file(entry.path()).unwrap();
        }
        if let Some(old) = before {
            fs::remove_dir_all(old).unwrap();
        }
    }
}

/// Puts a volume at a path of the container; `script` gets the mounts that it needs.
pub(super) fn mount(
    root: &Path,
    path: &str,
    volume: &Value,
    maps: &ConfigMaps,
    script: &mut String,
) {
    let place = root.join(path.trim_start_matches('/'));
    let name = word(&volume["name"]);
    if volume["configMap"].is_object() {
        fs::create_dir_all(&place).unwrap();
        let _ = writeln!(script, "mount --bind -o ro {0} {0}", place.display());
        maps.show(&volume["configMap"], place);
    } else if volume["emptyDir"].is_object() {
        let folder = root.with_extension(name);
        fs::create_dir_all(&place).unwrap();
        fs::create_dir_all(&folder).unwrap();
        let _ = writeln!(script, "mount --bind {} {}", folder.display(), place.display());
    } else if volume["hostPath"]["type"] == "FileOrCreate" {
        // The lock of iptables. Each pod has one of its own here, as nothing takes it.
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, "").unwrap();
    } else {
        panic!("not known: the volume {volume}");
    }
}
