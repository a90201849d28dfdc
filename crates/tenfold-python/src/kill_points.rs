//! Lets a test in Python kill its process at a named place of the engine; only with the feature `kill-points`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tenfold_engine::shm::kill_point;

/// The names of all kill-points.
#[pyfunction]
fn kill_points() -> Vec<&'static str> {
    kill_point::ALL.iter().map(|point| point.name()).collect()
}

/// Kills this process when it reaches the point after passing it `passes` times.
#[pyfunction]
fn kill_at(name: &str, passes: u32) -> PyResult<()> {
    let point = kill_point::ALL.iter().find(|point| point.name() == name);
    let point = point.ok_or_else(|| PyValueError::new_err(format!("no kill-point is called {name:?}")))?;
    kill_point::arm(*point, passes);
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(kill_points, module)?)?;
    module.add_function(wrap_pyfunction!(kill_at, module)?)
}
