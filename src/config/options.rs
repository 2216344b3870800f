//! Generates from a list of options everything that must agree with it: the struct, the command
//! line with its help, the names of the variables and of the file's keys. Each subcommand has one
//! list.

use clap::{Arg, ArgAction};

use super::Problem;
use super::arity::Arity;
use super::values::{Values, kebab, variable};

/// The options of a subcommand, which [`options!`] implements for its struct.
pub(super) trait Options: Sized {
    /// The properties of all options, in the order of the list.
    fn specs() -> Vec<OptionSpec>;

    /// The checked values; `None` if one is refused: `values.problems` has the reasons.
    fn take(values: &mut Values) -> Option<Self>;

    /// The options that are set, in kebab case, as a TOML file has them.
    fn show(&self) -> Vec<(String, toml::Value)>;

    /// The values outside the range of their option. Values from texts never are, but a program
    /// can set the fields.
    fn out_of_range(&self) -> Vec<Problem>;
}

/// Declares a struct of options and implements [`Options`] for it. Behind the struct's own fields
/// the options follow under the headings of `--help`, each as
/// `/// help`, then `name: Type = arity, "VALUE NAME", "default";`. A heading with
/// `, variables: false` has options that no variable sets.
macro_rules! options {
    (
        $(#[doc = $about:literal])+
        pub struct $Options:ident {
            $( $(#[doc = $about_field:literal])+ pub $field:ident: $field_type:ty, )*
        }
        $( $heading:literal $(, variables: $variables:literal)? { $(
            $(#[doc = $help:literal])+
            $name:ident: $type:ty = $arity:expr, $value_name:literal, $default:literal;
        )+ } )+
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Options {
            $($( $(#[doc = $help])+ pub $name: $type, )+)+
            $( $(#[doc = $about_field])+ pub $field: $field_type, )*
        }

        impl $crate::config::options::Options for $Options {
            fn specs() -> Vec<$crate::config::options::OptionSpec> {
                let mut specs = Vec::new();
                $(
                    let variables = true $(&& $variables)?;
                    $( specs.push($crate::config::options::OptionSpec::new(
                        ($heading, variables),
                        stringify!($name),
                        concat!($($help),+),
                        ($value_name, $default),
                        &$arity,
                    )); )+
                )+
                specs
            }

            fn take(values: &mut $crate::config::values::Values) -> Option<Self> {
                $($( let $name = values.take(stringify!($name), &$arity, $default); )+)+
                Some(Self {
                    $($( $name: $name?, )+)+
                    $( $field: Default::default(), )*
                })
            }

            fn show(&self) -> Vec<(String, toml::Value)> {
                use $crate::config::arity::Arity;
                let all = [$($( (stringify!($name), $arity.show(&self.$name)), )+)+];
                let shown = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
                shown.map(|(name, value)| ($crate::config::values::kebab(name), value)).collect()
            }

            fn out_of_range(&self) -> Vec<$crate::config::Problem> {
                use $crate::config::options::out_of_range;
                let all = [$($( out_of_range(stringify!($name), &$arity, &self.$name), )+)+];
                all.into_iter().flatten().collect()
            }
        }
    };
}
pub(super) use options;

/// The problem of a value that is outside the range of its option.
pub(super) fn out_of_range<A: Arity>(name: &str, arity: &A, value: &A::Value) -> Option<Problem> {
    arity.parser().range.as_ref()?;
    let got = match arity.show(value)? {
        toml::Value::String(text) => text,
        number => number.to_string(),
    };
    let reason = arity.parser().parse(&got).err()?;
    Some(Problem {
        option: kebab(name),
        got: Some((got, "the program".into())),
        reason,
    })
}

/// The heading of the options that clap lists without one.
const NO_HEADING: &str = "Options";

/// The properties of an option that its sources and `--help` need.
pub(super) struct OptionSpec {
    /// In kebab case.
    pub(super) name: String,
    /// The variable that sets it, if any.
    pub(super) variable: Option<String>,
    pub(super) many: bool,
    heading: &'static str,
    help: String,
    value_name: &'static str,
    /// Whether the flag may have no value, which means `true`.
    bare: bool,
    begins_value: fn(&str) -> bool,
}

impl OptionSpec {
    pub(super) fn new<A: Arity>(
        (heading, variables): (&'static str, bool),
        name: &str,
        help: &str,
        (value_name, default): (&'static str, &str),
        arity: &A,
    ) -> Self {
        let parser = arity.parser();
        let variable = variables.then(|| variable(name));
        let mut help = help.trim().replace('`', "");
        if let Some(variable) = &variable {
            help += &format!(" [env: {variable}]");
        }
        if !default.is_empty() {
            help += &format!(" [default: {default}]");
        }
        if let Some((from, to)) = &parser.range {
            help += &format!(" [{from} to {to}]");
        }
        Self {
            name: kebab(name),
            variable,
            many: A::MANY,
            heading,
            help,
            value_name,
            bare: parser.bare,
            begins_value: parser.begins_value,
        }
    }

    /// The texts in the text of a flag, of a variable or of the file: a list has commas, and a
    /// comma of a value, as a name may have one, is `\,`.
    pub(super) fn split(&self, text: &str) -> Vec<String> {
        if !self.many {
            return vec![text.to_owned()];
        }
        let (mut texts, mut part) = (Vec::new(), String::new());
        let mut rest = text.chars();
        while let Some(char) = rest.next() {
            match char {
                '\\' if rest.as_str().starts_with(',') => part.extend(rest.next()),
                ',' if (self.begins_value)(rest.as_str().trim_start()) => {
                    texts.push(std::mem::take(&mut part));
                }
                char => part.push(char),
            }
        }
        texts.push(part);
        texts.iter().map(|part| part.trim().to_owned()).collect()
    }

    pub(super) fn arg(&self) -> Arg {
        let arg = Arg::new(self.name.clone())
            .long(self.name.clone())
            .help(self.help.clone())
            .value_name(self.value_name)
            .help_heading(Some(self.heading).filter(|heading| *heading != NO_HEADING));
        if self.many {
            return arg.action(ArgAction::Append);
        }
        if self.bare {
            let arg = arg.num_args(0..=1).require_equals(true);
            return arg.default_missing_value("true");
        }
        arg
    }
}
