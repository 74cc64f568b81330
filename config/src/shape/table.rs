//! Lists and tables.

use std::marker::PhantomData;

use toml::Spanned;
use toml::de::DeValue;

use super::{Shape, describe};
use crate::reader::{Context, Item, RawTable};
use crate::spec::{Form, Style};

/// A list of values of one shape.
pub(crate) struct List<S> {
    pub(crate) item: S,
    pub(crate) min: usize,
    pub(crate) max: usize,
}

impl<S: Shape> Shape for List<S> {
    type Value = Vec<Item<S::Value>>;

    fn form(&self) -> Form {
        Form::List {
            item: Box::new(self.item.form()),
            min: self.min,
            max: self.max,
        }
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        context: &mut Context<'_>,
    ) -> Option<Self::Value> {
        let Some(array) = value.get_ref().as_array() else {
            let name = path.rsplit('.').next().unwrap_or(path);
            let message = format!("`{path}` is {}, not a list", describe(value.get_ref()));
            context.refuse(
                path,
                &value.span(),
                message,
                format!("put it in brackets: {name} = [ … ]"),
            );
            return None;
        };
        if !(self.min..=self.max).contains(&array.len()) {
            let message = format!(
                "`{path}` has {} entries, outside {}..={}",
                array.len(),
                self.min,
                self.max
            );
            let help = if array.len() < self.min {
                "add entries"
            } else {
                "take entries out"
            };
            context.refuse(path, &value.span(), message, help);
        }
        let items = array.iter().enumerate().filter_map(|(index, item)| {
            let path = format!("{path}[{index}]");
            let value = self.item.read(item, &path, context)?;
            Some(Item {
                value,
                span: context.place(&item.span()),
                path,
            })
        });
        Some(items.collect())
    }
}

/// One table.
pub(crate) struct One<T> {
    style: Style,
    marker: PhantomData<fn() -> T>,
}

/// A table that people write with a header of its own.
pub(crate) const fn section<T: RawTable>() -> One<T> {
    One {
        style: Style::Header,
        marker: PhantomData,
    }
}

/// A table that people write in braces.
pub(crate) const fn inline<T: RawTable>() -> One<T> {
    One {
        style: Style::Inline,
        marker: PhantomData,
    }
}

impl<T: RawTable> Shape for One<T> {
    type Value = T;

    fn form(&self) -> Form {
        Form::Table(T::spec(), self.style)
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<T> {
        if let Some(table) = value.get_ref().as_table() {
            return Some(T::read(table, &value.span(), path, context));
        }
        let help = match self.style {
            Style::Header => format!("write [{path}] once, and its keys below"),
            Style::Inline => {
                let name = path.rsplit('.').next().unwrap_or(path);
                format!(
                    "write {name} = {{ {} }}",
                    T::KEYS
                        .iter()
                        .map(|key| format!("{key} = …"))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
        };
        let message = format!("`{path}` is {}, not one table", describe(value.get_ref()));
        context.refuse(path, &value.span(), message, help);
        None
    }
}

/// Any number of tables.
pub(crate) struct Several<T> {
    style: Style,
    max: usize,
    marker: PhantomData<fn() -> T>,
}

/// Tables that people write with a header for each.
pub(crate) const fn sections<T: RawTable>(max: usize) -> Several<T> {
    Several {
        style: Style::Header,
        max,
        marker: PhantomData,
    }
}

/// Tables that people write as a list in brackets.
pub(crate) const fn inlines<T: RawTable>(max: usize) -> Several<T> {
    Several {
        style: Style::Inline,
        max,
        marker: PhantomData,
    }
}

impl<T: RawTable> Shape for Several<T> {
    type Value = Vec<T>;

    fn form(&self) -> Form {
        Form::Tables {
            spec: T::spec(),
            style: self.style,
            max: self.max,
        }
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<Vec<T>> {
        let Some(array) = value.get_ref().as_array() else {
            let help = match self.style {
                Style::Header => format!("write [[{path}]] with two brackets: there can be several"),
                Style::Inline => "put it in brackets, as there can be several: [ { … }, { … } ]".to_owned(),
            };
            let message = format!("`{path}` is {}, not a list of tables", describe(value.get_ref()));
            context.refuse(path, &value.span(), message, help);
            return None;
        };
        if !(1..=self.max).contains(&array.len()) {
            let message = format!("`{path}` has {} tables, outside 1..={}", array.len(), self.max);
            let help = if array.is_empty() {
                "add a table, or take the key out"
            } else {
                "take tables out"
            };
            context.refuse(path, &value.span(), message, help);
        }
        let tables = array.iter().enumerate().filter_map(|(index, item)| {
            let path = format!("{path}[{index}]");
            if let Some(table) = item.get_ref().as_table() {
                return Some(T::read(table, &item.span(), &path, context));
            }
            let message = format!("`{path}` is {}, not a table", describe(item.get_ref()));
            context.refuse(&path, &item.span(), message, "write each one in braces: { … }");
            None
        });
        Some(tables.collect())
    }
}
