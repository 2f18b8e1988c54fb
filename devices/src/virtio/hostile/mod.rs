//! What a hostile guest does to every device, through registers and guest memory. One table of devices, one of
//! malformations; `docs/attacks.md` names the tests.

mod bus;
mod chains;
mod registers;
mod subject;
