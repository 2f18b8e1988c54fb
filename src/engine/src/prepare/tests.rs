use super::*;

#[test]
fn the_default_network_depends_on_the_user() {
    assert_eq!(network(&Options::default(), true), Network::Bridge);
    assert_eq!(network(&Options::default(), false), Network::None);
    let none = Options {
        network: Some(Network::None),
        ..Options::default()
    };
    assert_eq!(network(&none, true), Network::None);
}
