use crate::testing::{Fixture, running};

#[test]
fn everything_is_counted() {
    let fixture = Fixture::new();
    let alive = fixture.create("alive");
    fixture.create("dead");
    fixture.create_pod("pod");
    fixture.set_state(&alive, running());
    let held = fixture.hold(&alive);
    let info = fixture.engine.info().unwrap();
    assert_eq!((info.containers, info.running, info.stopped), (2, 1, 1));
    assert_eq!((info.images, info.pods), (0, 1));
    let usage = fixture.engine.disk_usage().unwrap();
    assert_eq!((usage.containers.len(), usage.images.len()), (2, 0));
    drop(held);
}
