//! The command line of the program: its subcommands, and the checked options of the one that was
//! given.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::Config;
use super::api_commands::{self, ApiInvocation, ApiOptions};
use super::bench::{self, BenchRequest};
use super::client_commands::{self, ClientInvocation, ConnectOptions};
use super::options::{OptionSpec, Options};
use super::sources::{self, Variables};
use super::token::{self, TokenReadRequest, TokenRequest};
use super::tools::{self, DrainRequest};
use super::values::{ConfigError, Values, variable};

/// The parsed command line, with the options checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Invocation {
    /// `switchboard serve`: run a node.
    Serve(Box<Config>),
    /// `switchboard check`: print what a node would do with this configuration.
    Check(Box<Config>),
    /// `serve --check-config` or `check --toml`: print the effective configuration, by
    /// [`Config::to_toml`].
    CheckConfig(Box<Config>),
    /// `switchboard token`: sign a token and print it.
    Token(Box<TokenRequest>),
    /// `switchboard token read`: show the claims of a token.
    TokenRead(Box<TokenReadRequest>),
    /// `switchboard publish`, `tail`, `history` or `members`: be a client of running nodes.
    Client(Box<ClientInvocation>),
    /// `switchboard rooms`: call the HTTP API of running nodes.
    Api(Box<ApiInvocation>),
    /// `switchboard bench`: load running nodes.
    Bench(Box<BenchRequest>),
    /// `switchboard drain`: drain a node of this machine.
    Drain(DrainRequest),
    /// `--help`, `--version`, `completions` or `man`: print the text.
    Text(String),
}

impl Invocation {
    /// Reads the given command line (the program's name first), variables and way to read a file,
    /// and checks all of it: the error names every refused value.
    pub fn parse(
        args: impl IntoIterator<Item = OsString>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let mut matches = match command().try_get_matches_from(args) {
            Ok(matches) => matches,
            Err(error) => return text_or_usage(&error),
        };
        let (subcommand, flags) = matches
            .remove_subcommand()
            .expect("clap requires a subcommand");
        let variables = Variables::with_prefix(variables);
        if subcommand == "token" {
            let mut flags = flags;
            if let Some((_, flags)) = flags.remove_subcommand() {
                let request = TokenReadRequest::read(flags, &variables)?;
                return Ok(Self::TokenRead(Box::new(request)));
            }
            let request = TokenRequest::read(flags, &variables)?;
            return Ok(Self::Token(Box::new(request)));
        }
        if client_commands::NAMES.contains(&&*subcommand) {
            let invocation = ClientInvocation::read(&subcommand, flags, &variables)?;
            return Ok(Self::Client(Box::new(invocation)));
        }
        if subcommand == "bench" {
            let request = BenchRequest::read(flags, &variables)?;
            return Ok(Self::Bench(Box::new(request)));
        }
        if api_commands::NAMES.contains(&&*subcommand) {
            let invocation = ApiInvocation::read(flags, &variables)?;
            return Ok(Self::Api(Box::new(invocation)));
        }
        match &*subcommand {
            "drain" => return Ok(Self::Drain(DrainRequest::read(flags))),
            "completions" => return Ok(Self::Text(tools::completions(flags, command()))),
            "man" => return tools::man(flags, command()).map(Self::Text),
            _ => {}
        }
        let (is_check, as_file) = match &*subcommand {
            "check" => (true, flags.get_flag("toml")),
            _ => (false, flags.get_flag("check-config")),
        };
        let config = Box::new(read_config(flags, &variables, read_file)?);
        Ok(match (is_check, as_file) {
            (_, true) => Self::CheckConfig(config),
            (true, false) => Self::Check(config),
            (false, false) => Self::Serve(config),
        })
    }
}

fn text_or_usage(error: &clap::Error) -> Result<Invocation, ConfigError> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Invocation::Text(text)),
        _ => Err(ConfigError::Usage(text)),
    }
}

fn read_config(
    mut flags: ArgMatches,
    variables: &Variables,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Config, ConfigError> {
    let (options, mut values) = (Config::specs(), Values::default());
    // From the weakest source to the strongest; each overwrites the values of the previous ones.
    let file = flags.remove_one::<String>("config");
    let file = file.or_else(|| variables.get(&variable("config")).map(str::to_owned));
    if let Some(path) = file.map(PathBuf::from) {
        let text = read_file(&path).map_err(|error| error.to_string());
        text.and_then(|text| sources::from_file(&text, &path, &options, &mut values))
            .map_err(|reason| ConfigError::File { path, reason })?;
    }
    variables.put(&options, &mut values);
    sources::from_flags(&mut flags, &options, &mut values);
    let (clients, api) = (ConnectOptions::specs(), ApiOptions::specs());
    let all = options.iter().chain(&clients).chain(&api);
    Config::checked(values, variables.unknown(all))
}

fn command() -> Command {
    Command::new("switchboard")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(check())
        .subcommand(token::command())
        .subcommands(client_commands::commands())
        .subcommands(api_commands::commands())
        .subcommand(bench::command())
        .subcommands(tools::commands())
}

fn serve() -> Command {
    let check_config = Arg::new("check-config")
        .long("check-config")
        .action(ArgAction::SetTrue)
        .help("Check the configuration, print what is in force (without passwords), exit");
    with_node_options(Command::new("serve").about("Run a node").arg(check_config))
}

fn check() -> Command {
    let toml = Arg::new("toml")
        .long("toml")
        .action(ArgAction::SetTrue)
        .help("Print what is in force as a configuration file, without passwords");
    let about = "Check the configuration of a node, and print what it would do";
    with_node_options(Command::new("check").about(about).arg(toml))
}

/// Adds what configures a node.
fn with_node_options(command: Command) -> Command {
    let config = format!(
        "Read options from a TOML file, whose keys are the names of the options without the \
         dashes. Flags and variables win over it. [env: {}]",
        variable("config")
    );
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(config);
    command
        .after_help(
            "Times are a number and a unit: 500ms, 25s, 5m, 2h, 30d, 1w. Sizes are bytes: 65536, \
             64KiB or 64k (by 1024), 64kB (by 1000), up to GiB and GB. A comma in a value \
             of a list is \\,. A flag wins over the variable, the variable over the file, the file \
             over the default. An empty variable counts as not set.",
        )
        .arg(config)
        .args(Config::specs().iter().map(OptionSpec::arg))
}
