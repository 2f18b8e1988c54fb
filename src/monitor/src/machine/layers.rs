//! Layers on the layer device.

use protocol::agent::LayerExtent;
use protocol::record::LayerFile;

use super::Fault;
use crate::devices::{LAYER_ALIGN_BYTES, LAYERS_LEN_BYTES};

/// A layer that is not on the layer device: its index among those asked for, and the offset that it is to have.
pub(crate) type NewLayer = (usize, u64);

/// Which layer lies where on the layer device. A layer that several containers have lies there once.
#[derive(Debug, Default)]
pub(super) struct LayerTable {
    placed: Vec<(LayerFile, LayerExtent)>,
    end_bytes: u64,
}

impl LayerTable {
    /// The places of `layers`, and of those that are new the index and the offset.
    pub(super) fn place(
        &mut self,
        layers: &[LayerFile],
    ) -> Result<(Vec<LayerExtent>, Vec<NewLayer>), Fault> {
        let (mut places, mut new) = (Vec::new(), Vec::new());
        for (index, layer) in layers.iter().enumerate() {
            let known = self.placed.iter().find(|(known, _)| known == layer);
            if let Some((_, extent)) = known {
                places.push(*extent);
                continue;
            }
            let extent = LayerExtent {
                offset_bytes: self.end_bytes,
                len_bytes: layer.len_bytes,
            };
            let end = extent.offset_bytes.checked_add(layer.len_bytes);
            let end = end.and_then(|end| end.checked_next_multiple_of(LAYER_ALIGN_BYTES));
            match end.filter(|end| *end <= LAYERS_LEN_BYTES) {
                Some(end) => self.end_bytes = end,
                None => return Err(Fault::NoRoom(layer.path.clone())),
            }
            self.placed.push((layer.clone(), extent));
            places.push(extent);
            new.push((index, extent.offset_bytes));
        }
        Ok((places, new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, len_bytes: u64) -> LayerFile {
        LayerFile {
            path: name.into(),
            len_bytes,
        }
    }

    #[test]
    fn a_layer_lies_on_the_device_once_and_new_ones_come_behind() {
        let mut table = LayerTable::default();
        let (a, b, c) = (
            layer("a", 4096),
            layer("b", LAYER_ALIGN_BYTES + 4096),
            layer("c", 4096),
        );
        let (first, new) = table.place(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(new, [(0, 0), (1, LAYER_ALIGN_BYTES)]);
        let (second, new) = table.place(&[c, b, a]).unwrap();
        assert_eq!(new, [(0, 3 * LAYER_ALIGN_BYTES)]);
        assert_eq!((second[1], second[2]), (first[1], first[0]));
    }

    #[test]
    fn a_device_that_is_full_takes_no_more() {
        let mut table = LayerTable::default();
        let big = layer("big", LAYERS_LEN_BYTES - LAYER_ALIGN_BYTES);
        table.place(&[big]).unwrap();
        table.place(&[layer("last", 4096)]).unwrap();
        let refused = table.place(&[layer("more", 4096)]).unwrap_err();
        assert!(refused.to_string().contains("more"));
        assert!(table.place(&[layer("endless", u64::MAX)]).is_err());
    }
}
