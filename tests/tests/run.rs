//! `hull run`: a container speaks.

use anyhow::Result;
use tests::Hull;

#[test]
fn a_container_speaks() -> Result<()> {
    let hull = Hull::new()?;
    let outcome = hull
        .run(["run", "--rm", "demo", "echo", "hello"])?
        .expect_code(0);
    assert_eq!(outcome.stdout(), "hello");
    Ok(())
}

#[test]
fn a_containers_exit_code_is_hulls() -> Result<()> {
    let hull = Hull::new()?;
    hull.run(["run", "--rm", "demo", "sh", "-c", "exit 42"])?
        .expect_code(42);
    Ok(())
}
