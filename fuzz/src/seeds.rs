//! Seeds: for each target some inputs that reach far, written in the coding that it reads. `src/bin/seeds.rs` puts them
//! into `fuzz/seeds`.

mod devices;
mod documents;
mod frames;
mod images;
mod names;
mod shares;

/// Seeds of some targets, by their names.
pub type Seeds = Vec<(&'static str, Vec<Vec<u8>>)>;

/// All seeds, by target.
pub fn all() -> Seeds {
    let mut all = devices::all();
    all.extend(images::all());
    all.extend(documents::all());
    all.extend(names::all());
    all.extend(shares::all());
    all.extend(frames::all());
    all
}
