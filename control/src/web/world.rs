//! The world as the data map draws it: shapes and points of countries, from
//! [`assets/world.txt`](../../assets/README.md).

use std::collections::HashMap;
use std::sync::LazyLock;

use carnet_core::policy::Country;

/// Where on the map: to the right, and down, in its own units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
}

struct World {
    size: Point,
    countries: HashMap<&'static str, (Point, Option<&'static str>)>,
    land: String,
}

static WORLD: LazyLock<World> = LazyLock::new(|| read(include_str!("../../assets/world.txt")));

/// A line of width and height, then a line per country: its code, a point of it, and its shape as
/// an SVG path; `-`: it has none, or is land without a code.
fn read(file: &'static str) -> World {
    let point = |x: &str, y: &str| {
        Some(Point {
            x: x.parse().ok()?,
            y: y.parse().ok()?,
        })
    };
    let mut lines = file.lines();
    let size = lines
        .next()
        .and_then(|line| line.split_once(' '))
        .and_then(|(width, height)| point(width, height));
    let mut world = World {
        size: size.unwrap_or(Point { x: 0.0, y: 0.0 }),
        countries: HashMap::new(),
        land: String::new(),
    };
    for line in lines {
        let mut parts = line.splitn(4, ' ');
        let (Some(code), Some(x), Some(y), Some(shape)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let shape = (shape != "-").then_some(shape);
        world.land.push_str(shape.unwrap_or_default());
        if let Some(point) = point(x, y) {
            world.countries.insert(code, (point, shape));
        }
    }
    world
}

/// How wide and how high the map is.
pub(super) fn size() -> Point {
    WORLD.size
}

/// All land but Antarctica's, as an SVG path.
pub(super) fn land() -> &'static str {
    &WORLD.land
}

/// A point in a country; every country has one.
pub(super) fn point(country: Country) -> Option<Point> {
    let (point, _) = WORLD.countries.get(country.code())?;
    Some(*point)
}

/// A country's shape as an SVG path; `None`: it is too small to be drawn.
pub(super) fn shape(country: Country) -> Option<&'static str> {
    let (_, shape) = WORLD.countries.get(country.code())?;
    *shape
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The corners of a path of moves and relative lines: the least and the greatest.
    fn corners(path: &str) -> (Point, Point) {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut top, mut bottom) = (f64::INFINITY, f64::NEG_INFINITY);
        for ring in path.split('M').skip(1) {
            let spaced = ring.replace('-', " -").replace(['l', 'z'], " ");
            let numbers: Vec<f64> = spaced
                .split_whitespace()
                .map(|number| number.parse().unwrap())
                .collect();
            assert_eq!(numbers.len() % 2, 0, "{ring}");
            let (mut x, mut y) = (0.0, 0.0);
            for step in numbers.chunks(2) {
                (x, y) = (x + step[0], y + step[1]);
                (least, most) = (least.min(x), most.max(x));
                (top, bottom) = (top.min(y), bottom.max(y));
            }
        }
        (Point { x: least, y: top }, Point { x: most, y: bottom })
    }

    #[test]
    fn every_country_of_iso_3166_has_a_point_on_the_map_and_within_its_shape() {
        let size = size();
        let every = Country::every();
        assert!(every.len() > 240, "{}", every.len());
        let mut drawn = 0;
        for (code, name) in every {
            let country = Country::from_code(&code).unwrap();
            let point = point(country).unwrap_or_else(|| panic!("no point for {name} ({code})"));
            assert!((0.0..=size.x).contains(&point.x), "{name}: {point:?}");
            assert!((0.0..=size.y).contains(&point.y), "{name}: {point:?}");
            if let Some(shape) = shape(country) {
                let (least, most) = corners(shape);
                assert!((least.x..=most.x).contains(&point.x), "{name}: {point:?}");
                assert!((least.y..=most.y).contains(&point.y), "{name}: {point:?}");
                assert!(least.y >= 0.0 && most.y <= size.y, "{name}");
                drawn += 1;
            }
        }
        assert!(drawn > 170, "{drawn}");
    }

    #[test]
    fn countries_that_natural_earth_has_without_a_code_are_there_and_land_without_one_is_land() {
        for code in ["fr", "no", "gf", "sg", "mt", "hk", "li"] {
            assert!(point(Country::from_code(code).unwrap()).is_some(), "{code}");
        }
        let drawn: usize = WORLD
            .countries
            .values()
            .filter_map(|(_, shape)| shape.map(str::len))
            .sum();
        // Kosovo, Northern Cyprus and Somaliland.
        assert!(land().len() > drawn, "{drawn}");
        // East is to the right and south is down.
        let at = |code| point(Country::from_code(code).unwrap()).unwrap();
        assert!(at("jp").x > at("de").x && at("de").x > at("us").x);
        assert!(at("za").y > at("de").y && at("de").y > at("no").y);
    }
}
