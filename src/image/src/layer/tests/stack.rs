//! Random stacks of layers against a model that is as simple as it can be: each layer's changes
//! made to one map of whole paths. The images are merged as overlayfs does it.

use std::collections::BTreeMap;

use super::model::{Model, TARGETS, Thing, below, followed, parents, random_path, renumbered};
use super::*;

type Tree = BTreeMap<String, Thing>;

/// One layer as the model sees it while its tar is written.
struct Layer<'a> {
    /// What the layers below it show.
    lower: &'a Tree,
    own: Model,
    /// Numbers of files that were copied from below.
    copied: BTreeMap<String, usize>,
    /// The next number of a file: none is used twice in a stack.
    next: &'a mut usize,
}

impl Layer<'_> {
    /// Whether this layer, so far, hides what is below at a path.
    fn hides(&self, path: &str) -> bool {
        let prefixes = parents(path).chain([path]);
        prefixes.into_iter().any(|prefix| {
            let dir = prefix.rsplit_once('/').map_or("", |(dir, _)| dir);
            self.own.hidden.contains(prefix) || self.own.opaque.contains(dir)
        })
    }

    /// What is at a path, whichever layer has it.
    fn at(&self, path: &str) -> Option<Thing> {
        let lower = || self.lower.get(path).filter(|_| !self.hides(path));
        self.own.things.get(path).or_else(lower).cloned()
    }

    fn make_parents(&mut self, path: &str) -> Option<String> {
        followed(path, |parent| {
            if self.own.things.contains_key(parent) {
                return self.at(parent);
            }
            let thing = match self.at(parent) {
                Some(link @ Thing::Link(_)) => return Some(link),
                Some(dir @ Thing::Dir { .. }) => dir,
                _ => Thing::Dir {
                    mode: 0o755,
                    opaque: false,
                },
            };
            self.own.things.insert(parent.to_owned(), thing.clone());
            Some(thing)
        })
    }

    fn put(&mut self, path: &str, thing: Thing) -> Option<()> {
        let path = self.make_parents(path)?;
        self.own.place(&path, thing);
        Some(())
    }

    fn number(&mut self) -> usize {
        *self.next += 1;
        *self.next
    }

    /// What a hard link to `target` is.
    fn linked(&mut self, target: &str) -> Option<Thing> {
        let target = &followed(target, |path| self.at(path))?;
        match self.own.things.get(target) {
            Some(Thing::Dir { .. }) => return None,
            Some(thing) => return Some(thing.clone()),
            None => {}
        }
        if self.hides(target) {
            return None;
        }
        match self.lower.get(target)?.clone() {
            Thing::Dir { .. } => None,
            Thing::File { data, .. } => {
                let number = match self.copied.get(target) {
                    Some(&number) => number,
                    None => self.number(),
                };
                self.copied.insert(target.to_owned(), number);
                Some(Thing::File { number, data })
            }
            other => Some(other),
        }
    }

    /// What the stack shows with this layer on top.
    fn applied(self) -> Tree {
        let mut merged = self.lower.clone();
        for path in &self.own.hidden {
            let inside = below(path);
            merged.retain(|other, _| other != path && !inside(other));
        }
        for dir in &self.own.opaque {
            let inside = below(dir);
            merged.retain(|other, _| !dir.is_empty() && !inside(other));
        }
        for (path, thing) in self.own.things {
            let is_dir = |thing: &Thing| matches!(thing, Thing::Dir { .. });
            if !is_dir(&thing) || !merged.get(&path).is_some_and(is_dir) {
                let inside = below(&path);
                merged.retain(|other, _| !inside(other));
            }
            merged.insert(path, thing);
        }
        merged
    }
}

/// A random layer over `lower`: its tar, and what the stack shows then; `None` if it should be
/// refused.
fn random_layer(random: &mut Random, lower: &Tree, next: &mut usize) -> (Vec<u8>, Option<Tree>) {
    let mut archive = Archive::default();
    let mut layer = Layer {
        lower,
        own: Model::default(),
        copied: BTreeMap::new(),
        next,
    };
    for _ in 0..random.below(10) {
        if add(random, &mut archive, &mut layer).is_none() {
            // The first refusal ends the tar.
            return (archive.finish(), None);
        }
    }
    (archive.finish(), Some(layer.applied()))
}

fn add(random: &mut Random, archive: &mut Archive, layer: &mut Layer<'_>) -> Option<()> {
    let path = &random_path(random);
    match random.below(20) {
        0..=4 => {
            let mode = 0o700 + random.below(64) as u32;
            archive.add(E {
                path,
                mode,
                ..E::DIR
            });
            layer.put(
                path,
                Thing::Dir {
                    mode,
                    opaque: false,
                },
            )
        }
        5..=9 => {
            let number = layer.number();
            let data = vec![number as u8; [0, 1, 4096, 5000][random.below(4)]];
            archive.add(E {
                path,
                data: &data,
                ..E::FILE
            });
            layer.put(path, Thing::File { number, data })
        }
        10 => {
            let link = TARGETS[random.below(TARGETS.len())];
            archive.add(E {
                path,
                link,
                ..E::SYMLINK
            });
            layer.put(path, Thing::Link(link.into()))
        }
        11..=13 => {
            // Mostly existing targets: most random ones would be refused.
            let known: Vec<_> = layer.lower.keys().chain(layer.own.things.keys()).collect();
            let target = match random.below(4) {
                0 => random_path(random),
                _ if known.is_empty() => return Some(()),
                _ => known[random.below(known.len())].clone(),
            };
            archive.add(E {
                path,
                link: &target,
                ..E::HARD_LINK
            });
            layer.make_parents(path)?;
            let thing = layer.linked(&target)?;
            layer.put(path, thing)
        }
        14..=17 => {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            archive.add(E {
                path: &format!("{dir}/.wh.{name}"),
                ..E::FILE
            });
            let path = layer.make_parents(path)?;
            layer.own.hidden.insert(path);
            Some(())
        }
        18 => {
            archive.add(E {
                path: &format!("{path}/.wh..wh..opq"),
                ..E::FILE
            });
            let inside = layer.make_parents(&format!("{path}/x"))?;
            let dir = inside.rsplit_once('/').map_or("", |(dir, _)| dir);
            layer.own.opaque.insert(dir.to_owned());
            Some(())
        }
        _ if random.below(4) == 0 => {
            archive.add(E {
                path: ".wh..wh..opq",
                ..E::FILE
            });
            layer.own.opaque.insert(String::new());
            Some(())
        }
        _ => Some(()),
    }
}

/// A directory of one image of the stack.
struct Dir<'a> {
    /// The image's number.
    layer: usize,
    reader: &'a Reader,
    node: Node,
}

impl Dir<'_> {
    fn is_opaque(&self) -> bool {
        self.node.metadata.xattrs.get(b"trusted.overlay.opaque") == Some(b"y")
    }
}

/// Reads directories that overlayfs shows as one, the uppermost first.
fn merge(dirs: Vec<Dir<'_>>, path: &str, to: &mut Tree) {
    let mut names: BTreeMap<String, Vec<Dir<'_>>> = BTreeMap::new();
    for Dir {
        layer,
        reader,
        node,
    } in dirs
    {
        for entry in reader.entries(&node).unwrap() {
            let name = String::from_utf8(entry.name).unwrap();
            let node = reader.node(entry.nid).unwrap();
            names.entry(name).or_default().push(Dir {
                layer,
                reader,
                node,
            });
        }
    }
    for (name, found) in names {
        let path = match path {
            "" => name,
            _ => format!("{path}/{name}"),
        };
        let Dir {
            layer,
            reader,
            node,
        } = &found[0];
        let thing = match node.kind {
            // A whiteout.
            NodeKind::CharDevice(_) => continue,
            NodeKind::Directory => Thing::Dir {
                mode: node.metadata.permissions.into(),
                opaque: false,
            },
            NodeKind::Symlink => {
                Thing::Link(String::from_utf8(reader.read_link(node).unwrap()).unwrap())
            }
            NodeKind::File => {
                let mut data = vec![0; node.size() as usize];
                reader.read_at(node, &mut data, 0).unwrap();
                let number = layer << 32 | node.nid() as usize;
                Thing::File { number, data }
            }
            other => panic!("{other:?}"),
        };
        if matches!(thing, Thing::Dir { .. }) {
            let mut merged = Vec::new();
            for dir in found {
                if dir.node.kind != NodeKind::Directory {
                    break;
                }
                let is_last = dir.is_opaque();
                merged.push(dir);
                if is_last {
                    break;
                }
            }
            merge(merged, &path, to);
        }
        to.insert(path, thing);
    }
}

#[test]
fn random_stacks_show_what_the_model_says() {
    let (mut whole, mut refused, mut largest) = (0, 0, 0);
    for seed in 0..1500 {
        let mut random = Random(seed);
        let (mut images, mut shown, mut next): (Vec<File>, _, _) = (Vec::new(), Tree::new(), 0);
        for layer in 0..1 + random.below(4) {
            let (tar, expected) = random_layer(&mut random, &shown, &mut next);
            let lower = images.iter().map(|image| image.try_clone().unwrap());
            let result = convert_over(&tar, &LowerLayers::open(lower).unwrap());
            let Some(expected) = expected else {
                assert!(
                    matches!(result, Err(Error::Entry { .. })),
                    "seed {seed}, layer {layer} should be refused"
                );
                refused += 1;
                continue;
            };
            let (converted, image) =
                result.unwrap_or_else(|error| panic!("seed {seed}, layer {layer}: {error:?}"));
            if converted.opaque_root {
                images.clear();
            }
            images.push(image);
            shown = expected;

            let readers: Vec<_> = images
                .iter()
                .map(|image| Reader::open(image.try_clone().unwrap()).unwrap())
                .collect();
            let top_first = readers.iter().enumerate().rev();
            let roots = top_first.map(|(layer, reader)| Dir {
                layer,
                reader,
                node: reader.root().unwrap(),
            });
            let mut seen = Tree::new();
            merge(roots.collect(), "", &mut seen);
            assert_eq!(
                renumbered(seen),
                renumbered(shown.clone()),
                "seed {seed}, layer {layer}"
            );
            whole += 1;
            largest = largest.max(shown.len());
        }
    }
    assert!(
        whole > 1500 && refused > 250 && largest > 15,
        "the generator is one-sided: {whole} whole, {refused} refused, at most {largest} paths"
    );
}
