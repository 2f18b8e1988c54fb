//! Random tars against a model that is as simple as it can be: a map of whole paths.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A linear congruential generator (Knuth's MMIX), so that a failure can be repeated from its seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % limit
    }
}

/// What is at a path. Hard links have the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Thing {
    Dir { mode: u32, opaque: bool },
    File { number: usize, data: Vec<u8> },
    Link(String),
    Whiteout,
}

/// The contents of a layer, while its tar is written.
#[derive(Default)]
pub(super) struct Model {
    pub(super) things: BTreeMap<String, Thing>,
    pub(super) hidden: BTreeSet<String>,
    /// "" is the root.
    pub(super) opaque: BTreeSet<String>,
}

pub(super) fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

pub(super) fn below(path: &str) -> impl Fn(&String) -> bool {
    let prefix = format!("{path}/");
    move |other| other.starts_with(&prefix)
}

/// Targets of symlinks: relative and absolute, up and out, in circles, to what is not there.
pub(super) const TARGETS: [&str; 7] = ["target", "/a", "../b", "c/../a", "/", "../../..", "b/c"];

/// A path with the symlinks of its directories followed. `at` returns what is at a path, or makes a
/// directory there.
pub(super) fn followed(path: &str, mut at: impl FnMut(&str) -> Option<Thing>) -> Option<String> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let names = |text: &str| -> Vec<String> {
        let names = text.split('/').filter(|name| !name.is_empty());
        names.rev().map(str::to_owned).collect()
    };
    let (mut here, mut left, mut links): (Vec<String>, _, _) = (Vec::new(), names(dir), 0);
    while let Some(name) = left.pop() {
        if name == ".." {
            here.pop();
            continue;
        }
        here.push(name);
        match at(&here.join("/"))? {
            Thing::Dir { .. } => {}
            Thing::Link(target) if links < 40 => {
                links += 1;
                here.pop();
                if target.starts_with('/') {
                    here.clear();
                }
                left.extend(names(&target));
            }
            _ => return None,
        }
    }
    here.push(name.to_owned());
    Some(here.join("/"))
}

impl Model {
    /// Makes the parents, and returns the path without symlinks; `None` if something else is in
    /// their place.
    fn make_parents(&mut self, path: &str) -> Option<String> {
        followed(path, |parent| {
            let dir = Thing::Dir {
                mode: 0o755,
                opaque: false,
            };
            Some(self.things.entry(parent.to_owned()).or_insert(dir).clone())
        })
    }

    fn put(&mut self, path: &str, thing: Thing) -> Option<()> {
        let path = self.make_parents(path)?;
        self.place(&path, thing);
        Some(())
    }

    /// Puts a thing where its parents are.
    pub(super) fn place(&mut self, path: &str, thing: Thing) {
        match (self.things.get_mut(path), &thing) {
            (Some(Thing::Dir { mode: old, .. }), Thing::Dir { mode, .. }) => *old = *mode,
            _ => {
                let inside = below(path);
                self.things.retain(|other, _| !inside(other));
                self.hidden.retain(|other| !inside(other));
                self.opaque.retain(|other| !inside(other) && other != path);
                self.things.insert(path.to_owned(), thing);
            }
        }
    }

    /// What the image must contain.
    fn finish(mut self) -> BTreeMap<String, Thing> {
        self.opaque.extend(self.hidden.iter().cloned());
        for path in &self.opaque {
            if let Some(Thing::Dir { opaque, .. }) = self.things.get_mut(path) {
                *opaque = true;
            }
        }
        for path in self.hidden {
            let covered = self.opaque.contains("")
                || parents(&path)
                    .any(|p| matches!(self.things[p], Thing::Dir { opaque: true, .. }));
            if !covered && !self.things.contains_key(&path) {
                self.things.insert(path, Thing::Whiteout);
            }
        }
        self.things
    }
}

pub(super) fn random_path(random: &mut Random) -> String {
    let depth = 1 + random.below(3);
    let names: Vec<&str> = (0..depth)
        .map(|_| ["a", "b", "c", "-"][random.below(4)])
        .collect();
    names.join("/")
}

/// A random tar, and what it should become; `None` if it should be refused.
fn random_layer(seed: u64) -> (Vec<u8>, Option<BTreeMap<String, Thing>>) {
    let mut random = Random(seed);
    let (mut archive, mut model) = (Archive::default(), Some(Model::default()));
    for number in 0..random.below(25) {
        let path = random_path(&mut random);
        let model_after = |model: &mut Model| -> Option<()> {
            match random.below(10) {
                0..=2 => {
                    let mode = 0o700 + random.below(64) as u32;
                    archive.add(E {
                        path: &path,
                        mode,
                        ..E::DIR
                    });
                    model.put(
                        &path,
                        Thing::Dir {
                            mode,
                            opaque: false,
                        },
                    )
                }
                3..=5 => {
                    let data = vec![number as u8; [0, 1, 511, 4096, 5000][random.below(5)]];
                    archive.add(E {
                        path: &path,
                        data: &data,
                        ..E::FILE
                    });
                    model.put(&path, Thing::File { number, data })
                }
                6 => {
                    let link = TARGETS[random.below(TARGETS.len())];
                    archive.add(E {
                        path: &path,
                        link,
                        ..E::SYMLINK
                    });
                    model.put(&path, Thing::Link(link.into()))
                }
                7 => {
                    let link = random_path(&mut random);
                    archive.add(E {
                        path: &path,
                        link: &link,
                        ..E::HARD_LINK
                    });
                    model.make_parents(&path)?;
                    let link = followed(&link, |path| model.things.get(path).cloned())?;
                    let target = model
                        .things
                        .get(&link)
                        .filter(|t| !matches!(t, Thing::Dir { .. }))?;
                    model.put(&path, target.clone())
                }
                8 => {
                    let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
                    archive.add(E {
                        path: &format!("{dir}/.wh.{name}"),
                        ..E::FILE
                    });
                    let path = model.make_parents(&path)?;
                    model.hidden.insert(path);
                    Some(())
                }
                _ => {
                    archive.add(E {
                        path: &format!("{path}/.wh..wh..opq"),
                        ..E::FILE
                    });
                    let inside = model.make_parents(&format!("{path}/x"))?;
                    let dir = inside.rsplit_once('/').map_or("", |(dir, _)| dir);
                    model.opaque.insert(dir.to_owned());
                    Some(())
                }
            }
        };
        // The first refusal ends the tar.
        if model.as_mut().and_then(model_after).is_none() {
            model = None;
            break;
        }
    }
    (archive.finish(), model.map(Model::finish))
}

fn read(
    reader: &Reader,
    dir: &Node,
    path: &str,
    numbers: &mut BTreeMap<u64, usize>,
    to: &mut BTreeMap<String, Thing>,
) {
    for entry in reader.entries(dir).unwrap() {
        let name = String::from_utf8(entry.name).unwrap();
        let path = if path.is_empty() {
            name
        } else {
            format!("{path}/{name}")
        };
        let node = reader.node(entry.nid).unwrap();
        assert_eq!(reader.lookup(path.as_bytes()).unwrap().unwrap(), node);
        let thing = match node.kind {
            NodeKind::Directory => {
                read(reader, &node, &path, numbers, to);
                Thing::Dir {
                    mode: node.metadata.permissions.into(),
                    opaque: is_opaque(reader, &path),
                }
            }
            NodeKind::File => {
                *numbers.entry(node.nid()).or_default() += 1;
                let mut data = vec![0; node.size() as usize];
                reader.read_at(&node, &mut data, 0).unwrap();
                Thing::File {
                    number: node.nid() as usize,
                    data,
                }
            }
            NodeKind::Symlink => {
                Thing::Link(String::from_utf8(reader.read_link(&node).unwrap()).unwrap())
            }
            NodeKind::CharDevice(_) => Thing::Whiteout,
            other => panic!("{other:?}"),
        };
        to.insert(path, thing);
    }
}

/// Numbers files by their first path, so that both sides' numbers can be compared.
pub(super) fn renumbered(things: BTreeMap<String, Thing>) -> BTreeMap<String, Thing> {
    let mut numbers = BTreeMap::new();
    let renumber = |(path, thing)| match thing {
        Thing::File { number, data } => {
            let next = numbers.len();
            (
                path,
                Thing::File {
                    number: *numbers.entry(number).or_insert(next),
                    data,
                },
            )
        }
        other => (path, other),
    };
    things.into_iter().map(renumber).collect()
}

#[test]
fn random_layers_become_what_the_model_says() {
    let (mut kept, mut refused) = (0, 0);
    for seed in 0..4000 {
        let (tar, expected) = random_layer(seed);
        let result = convert_over(&tar, &LowerLayers::none());
        let Some(expected) = expected else {
            assert!(
                matches!(result, Err(Error::Entry { .. })),
                "seed {seed} should be refused"
            );
            refused += 1;
            continue;
        };
        let (_, file) = result.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        if seed % 100 == 0 {
            fsck(&file);
        }
        let reader = Reader::open(file).unwrap();
        let (mut links, mut things) = (BTreeMap::new(), BTreeMap::new());
        read(
            &reader,
            &reader.root().unwrap(),
            "",
            &mut links,
            &mut things,
        );
        assert_eq!(renumbered(things), renumbered(expected), "seed {seed}");
        for (nid, count) in links {
            assert_eq!(
                reader.node(nid).unwrap().links() as usize,
                count,
                "seed {seed}"
            );
        }
        kept += 1;
    }
    assert!(
        kept > 500 && refused > 500,
        "the generator is one-sided: {kept} kept, {refused} refused"
    );
}
