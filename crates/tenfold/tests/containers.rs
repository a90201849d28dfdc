//! The typed faces of Dict, List and Namespace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenfold::{Dict, Error, List, Manager, Namespace};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Point {
    x: i32,
    label: Option<String>,
}

fn point(x: i32) -> Point {
    Point { x, label: (x % 2 == 0).then(|| x.to_string()) }
}

fn is_shared<T: Clone + Send + Sync + Serialize + for<'de> Deserialize<'de> + std::fmt::Debug>() {}

#[test]
fn they_can_be_sent_anywhere() {
    is_shared::<Dict<String, Point>>();
    is_shared::<List<Vec<Dict<u8, Point>>>>();
    is_shared::<Namespace>();
    is_shared::<Manager>();
}

#[test]
fn a_dict_maps_keys_of_any_type() -> tenfold::Result<()> {
    let dict = Dict::from_iter((0..1000).map(|x| (point(x), x)))?;
    assert_eq!(dict.len(), 1000);
    assert_eq!(dict.insert(point(7), -7)?, Some(7));
    assert_eq!(dict.insert(point(1007), 1)?, None);
    assert_eq!(dict.get(&point(7))?, Some(-7));
    assert_eq!(dict.remove(&point(8))?, Some(8));
    assert!(!dict.contains_key(&point(8))?);
    assert_eq!(dict.get_or_insert(point(8), 80)?, 80);
    assert_eq!(dict.get_or_insert(point(8), 81)?, 80);
    assert_eq!(dict.pop_last()?, Some((point(8), 80)));
    let keys: Vec<i32> = dict.keys()?.iter().map(|key| key.x).collect();
    assert_eq!(keys, (0..8).chain(9..1000).chain([1007]).collect::<Vec<_>>());
    assert_eq!(dict.values()?.len(), 1000);
    let all: BTreeMap<Point, i32> = dict.items()?.into_iter().collect();
    let iterated: BTreeMap<Point, i32> = dict.iter().collect::<Result<_, _>>()?;
    assert_eq!(all, iterated);
    dict.clear()?;
    assert!(dict.is_empty());
    Ok(())
}

#[test]
fn keys_are_found_by_what_they_borrow() -> tenfold::Result<()> {
    let strings = Dict::from_iter([("one".to_string(), 1)])?;
    assert_eq!(strings.get("one")?, Some(1));
    strings.update("two", |old: Option<i32>| old.unwrap_or(1) * 2)?;
    strings.update("two", |old| old.unwrap_or(1) * 2)?;
    assert_eq!(strings.get("two")?, Some(4));
    let vectors = Dict::from_iter([(vec![1_u64, 2], "numbers".to_string())])?;
    assert_eq!(vectors.get(&[1_u64, 2][..])?.as_deref(), Some("numbers"));
    Ok(())
}

#[test]
fn an_iterator_notices_that_keys_changed() -> tenfold::Result<()> {
    let dict = Dict::from_iter((0..1000).map(|x| (x, x)))?;
    let mut iter: tenfold::dict::Iter<_, _> = dict.iter();
    iter.next().unwrap()?;
    dict.insert(5, 50)?;
    assert!(dict.iter().all(|entry| entry.is_ok()));
    dict.remove(&5)?;
    assert!(matches!(iter.find(Result::is_err), Some(Err(Error::Heap(_)))));
    assert!(iter.next().is_none());
    Ok(())
}

#[test]
fn a_list_does_what_a_vec_does() -> tenfold::Result<()> {
    let list = Manager::new()?.list((0..10).map(point))?;
    list.reverse()?;
    assert_eq!(list.get(0)?, Some(point(9)));
    assert_eq!(list.get(10)?, None);
    list.sort_by_key(|p| (p.x % 3, p.x))?;
    let xs = |list: &List<Point>| -> tenfold::Result<Vec<i32>> { Ok(list.to_vec()?.iter().map(|p| p.x).collect()) };
    assert_eq!(xs(&list)?, [0, 3, 6, 9, 1, 4, 7, 2, 5, 8]);
    list.sort()?;
    list.set(0, point(100))?;
    assert!(matches!(list.set(10, point(1)), Err(Error::InvalidArgument(_))));
    list.insert(1, point(50))?;
    assert_eq!(list.remove(2)?, Some(point(1)));
    assert_eq!(list.pop()?, Some(point(9)));
    assert_eq!(list.swap_remove(0)?, Some(point(100)));
    assert_eq!(xs(&list)?, [8, 50, 2, 3, 4, 5, 6, 7]);
    list.swap(0, 1)?;
    list.update(0, |p| point(p.x + 1))?;
    list.splice(1..=2, [point(1), point(1), point(1)])?;
    assert_eq!(list.slice(..5)?, [51, 1, 1, 1, 3].map(point));
    assert_eq!((list.position(&point(3))?, list.count(&point(1))?, list.contains(&point(2))?), (Some(4), 3, false));
    assert_eq!(list.iter().map(|p| p.map(|p| p.x)).collect::<Result<Vec<_>, _>>()?, xs(&list)?);
    list.extend((0..1000).map(point))?;
    assert_eq!(list.len(), 1009);
    list.clear()?;
    assert!(list.is_empty() && list.iter().next().is_none());
    Ok(())
}

#[test]
fn shared_things_nest() -> tenfold::Result<()> {
    let manager = Manager::new()?;
    let outer: Dict<String, List<i64>> = manager.dict()?;
    outer.insert("numbers".into(), manager.list([1, 2])?)?;
    outer.get("numbers")?.unwrap().push(3)?;
    assert_eq!(outer.get("numbers")?.unwrap().to_vec()?, [1, 2, 3]);
    // The list that leaves the dict lives on.
    let list = outer.insert("numbers".into(), List::new()?)?.unwrap();
    assert_eq!(list.to_vec()?, [1, 2, 3]);
    let all: List<Dict<String, List<i64>>> = List::from_iter([outer.clone(), outer])?;
    assert_eq!(all.get(1)?.unwrap().get("numbers")?.unwrap().len(), 0);
    Ok(())
}

#[test]
fn a_handle_is_received_as_the_type_it_is() -> tenfold::Result<()> {
    let space = Namespace::new()?;
    space.set("dict", &Dict::<String, i64>::new()?)?;
    assert!(space.get::<Dict<String, i64>>("dict")?.is_some());
    assert!(matches!(space.get::<Dict<String, u64>>("dict"), Err(Error::Decode { .. })));
    space.update("n", |n: Option<u32>| n.unwrap_or(0) + 1)?;
    assert_eq!(space.get::<u32>("n")?, Some(1));
    assert_eq!(space.names()?, ["dict", "n"]);
    assert!(space.remove("dict")? && !space.contains("dict")?);
    Ok(())
}

#[test]
fn a_handle_does_not_leave_the_family() -> tenfold::Result<()> {
    assert!(postcard::to_allocvec(&List::<u8>::new()?).is_err());
    Ok(())
}
