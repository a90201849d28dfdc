//! 8. A manager hands out dicts and lists that all processes see; keys and values of any serde type.
use std::fmt;

use serde::{Deserialize, Serialize};
use tenfold::{Dict, List, Manager, Process};

#[derive(PartialEq, Serialize, Deserialize)]
enum Any {
    Nothing,
    Int(i64),
    Real(f64),
    Text(String),
}

fn fill((d, l): (Dict<Any, Any>, List<i64>)) -> tenfold::Result<()> {
    d.insert(Any::Int(1), Any::Text("1".to_string()))?;
    d.insert(Any::Text("2".to_string()), Any::Int(2))?;
    d.insert(Any::Real(0.25), Any::Nothing)?;
    l.reverse()
}

fn main() -> tenfold::Result<()> {
    let manager = Manager::new()?;
    let (d, l) = (manager.dict()?, manager.list(0..10)?);
    Process::spawn(fill, (d.clone(), l.clone()))?.join()?;
    let items: Vec<String> = d.items()?.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    println!("{{{}}}", items.join(", "));
    println!("{:?}", l.to_vec()?);
    Ok(())
}

// No key here is NaN.
impl Eq for Any {}

impl fmt::Display for Any {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Any::Nothing => write!(f, "None"),
            Any::Int(number) => write!(f, "{number}"),
            Any::Real(number) => write!(f, "{number}"),
            Any::Text(text) => write!(f, "'{text}'"),
        }
    }
}
