//! The results as a picture: a bar for each row, as long as its multiple of the floor.

use std::fmt::Write as _;

use super::report::Row;

const WIDTH: f64 = 860.0;
const NAMES: f64 = 110.0;
const LINE: f64 = 20.0;
/// The longest bar; a multiple beyond it is cut and says its number.
const MOST: f64 = 12.0;
const BAR: f64 = (WIDTH - NAMES - 90.0) / MOST;

/// The chart of these rows.
pub(super) fn svg(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = 40.0;
    let mut group = None;
    for row in rows {
        if group != Some((row.n, row.shape)) {
            group = Some((row.n, row.shape));
            y += LINE * 0.5;
            text(&mut body, 10.0, y, "bold", &format!("{} units, {}", row.n, row.shape));
            y += LINE;
        }
        text(&mut body, 20.0, y, "normal", row.peer);
        match row.floor_ratio {
            Some(ratio) => {
                let colour = match row.peer {
                    "keel" => "#1f7a4d",
                    "floor" | "floor-one" => "#9aa5b1",
                    _ => "#3b6ea8",
                };
                let length = ratio.min(MOST) * BAR;
                let top = y - 12.0;
                // Writing into a string cannot fail.
                let _ = writeln!(
                    body,
                    "<rect x=\"{NAMES}\" y=\"{top}\" width=\"{length:.1}\" height=\"14\" fill=\"{colour}\"/>"
                );
                text(&mut body, NAMES + length + 6.0, y, "normal", &format!("{ratio:.2}"));
            }
            None => text(&mut body, NAMES, y, "normal", row.failed.as_deref().unwrap_or("-")),
        }
        y += LINE;
    }
    let height = y + LINE;
    let floor = NAMES + BAR;
    let title = "Wall time to start all units, as a multiple of the spawn floor";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"24\" font-size=\"16\">{title}</text>\n\
         <line x1=\"{floor}\" y1=\"36\" x2=\"{floor}\" y2=\"{height}\" stroke=\"#c0392b\" stroke-dasharray=\"3 3\"/>\n\
         {body}</svg>\n"
    )
}

fn text(body: &mut String, x: f64, y: f64, weight: &str, said: &str) {
    let said = said.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y}\" font-weight=\"{weight}\">{said}</text>");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ground::Run;
    use super::super::shape::Shape;
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_multiple() {
        let run = Run { wall: Duration::from_secs(2), cpu: Duration::ZERO, rss: 0, peak: 0 };
        let rows = [
            Row::new("keel", Shape::Side, 9, &[run], None, 1.0, 1.0),
            Row::new("systemd", Shape::Side, 9, &[], Some("a < b".to_owned()), 1.0, 1.0),
        ];
        let drawn = svg(&rows);
        assert!(drawn.contains("width=\"110.0\"") && drawn.contains(">2.00<"), "{drawn}");
        assert!(drawn.contains("a &lt; b"), "{drawn}");
        assert_eq!(drawn.matches("9 units, side").count(), 1);
    }
}
