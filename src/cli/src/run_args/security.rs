//! The rights of the container's process.

use clap::Args;
use engine::options::Options;

use super::container::given;
use values::SecurityOption;

/// User, groups, capabilities and profiles.
#[derive(Debug, Args)]
pub(super) struct SecurityArgs {
    /// User name or number, looked up inside the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Add a group by name or number, looked up inside the image
    #[arg(long, value_name = "GROUP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    group_add: Vec<String>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// All capabilities and the VM's devices, nothing hidden: inside the VM, which stays between it and the host
    #[arg(long)]
    privileged: bool,
    /// no-new-privileges, seccomp=FILE, seccomp=unconfined or systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
}

impl SecurityArgs {
    pub(super) fn set(self, options: &mut Options) -> anyhow::Result<()> {
        options.user = given(self.user);
        options.groups = self.group_add;
        options.cap_add = self.cap_add;
        options.cap_drop = self.cap_drop;
        options.privileged = self.privileged;
        for text in &self.security_opt {
            match values::security_option(text)? {
                SecurityOption::NoNewPrivileges(on) => options.no_new_privileges = on,
                SecurityOption::Seccomp(choice) => options.seccomp = choice,
                SecurityOption::Unmasked => options.unmasked = true,
                SecurityOption::Nothing => {}
            }
        }
        Ok(())
    }
}
