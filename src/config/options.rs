//! Generates from the list of options everything that must agree with it: the struct, the command
//! line with its help, the names of the variables and of the file's keys.

use clap::{Arg, ArgAction, Command};

use super::kinds::Kind;
use super::shapes::Shape;
use super::values::{kebab, variable};

/// Generates from the list of options the struct `Config` and three functions over all of them:
/// `options` (for the command line), `take` (from texts to values) and `show` (from values to
/// TOML). An item is `/// help`, then `name: Type = shape, "VALUE NAME", "default";`.
macro_rules! options {
    ($( $heading:literal { $(
        $(#[doc = $help:literal])+
        $name:ident: $type:ty = $shape:expr, $value_name:literal, $default:literal;
    )+ } )+) => {
        /// The configuration of a node: the options of `switchboard serve`, checked.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($( $(#[doc = $help])+ pub $name: $type, )+)+
            /// Warnings to log at the start.
            pub warnings: Vec<String>,
        }

        impl Config {
            fn options() -> Vec<$crate::config::options::Spec> {
                vec![$($(
                    $crate::config::options::Spec::new(
                        $heading, stringify!($name), concat!($($help),+), $value_name, $default, &$shape,
                    ),
                )+)+]
            }

            fn take(values: &mut $crate::config::values::Values) -> Config {
                Config {
                    $($( $name: values.take(stringify!($name), &$shape, $default), )+)+
                    warnings: Vec::new(),
                }
            }

            fn show(&self) -> Vec<(String, toml::Value)> {
                use $crate::config::shapes::Shape;
                let all = [$($(
                    (stringify!($name), $shape.show(&self.$name)),
                )+)+];
                let shown = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
                shown.map(|(name, value)| ($crate::config::values::kebab(name), value)).collect()
            }
        }
    };
}
pub(super) use options;

/// The properties of an option that the command line and `--help` need.
pub(super) struct Spec {
    heading: &'static str,
    /// In kebab case.
    pub(super) name: String,
    help: String,
    value_name: &'static str,
    pub(super) many: bool,
    bare: bool,
}

impl Spec {
    pub(super) fn new<S: Shape>(
        heading: &'static str,
        name: &str,
        help: &str,
        value_name: &'static str,
        default: &str,
        shape: &S,
    ) -> Spec {
        let mut help = help.trim().replace('`', "");
        help += &format!(" [env: {}]", variable(name));
        if !default.is_empty() {
            help += &format!(" [default: {default}]");
        }
        if let Some((from, to)) = shape.kind().range() {
            help += &format!(" [{from} to {to}]");
        }
        let name = kebab(name);
        Spec {
            heading,
            name,
            help,
            value_name,
            many: S::MANY,
            bare: S::Kind::BARE,
        }
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name.clone())
            .long(self.name.clone())
            .help(self.help.clone())
            .help_heading(self.heading)
            .value_name(self.value_name)
            .action(if self.many {
                ArgAction::Append
            } else {
                ArgAction::Set
            });
        match (self.many, self.bare) {
            (true, _) => arg.value_delimiter(','),
            (_, true) => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ => arg,
        }
    }
}

pub(super) fn command(options: &[Spec]) -> Command {
    let config = format!(
        "Read options from a TOML file, whose keys are the names of the options without the \
         dashes. Flags and variables win over it. [env: {}]",
        variable("config")
    );
    let serve = Command::new("serve")
        .about("Run a node")
        .after_help(
            "Times are a number and a unit: 500ms, 25s, 5m, 2h. Sizes are bytes: 65536, 64KiB, \
             1MiB. A flag wins over the variable, the variable over the file, the file over the \
             default. An empty variable counts as not set.",
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help(config),
        )
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .action(ArgAction::SetTrue)
                .help("Check the configuration, print what is in force (without passwords), exit"),
        )
        .args(options.iter().map(Spec::arg));
    Command::new("switchboard")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve)
        .subcommand(super::token::command())
}
