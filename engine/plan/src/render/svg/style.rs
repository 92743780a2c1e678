//! Colours and fonts. Classes carry their colours themselves, light first and dark in a media query: many programs that show SVG
//! know no CSS variables.

use std::fmt::Write;

/// How many colours there are for stages.
pub(super) const HUES: usize = 8;

/// Per stage colour: the lane and the ink on it, light and dark.
const STAGES: [[&str; 4]; HUES] = [
    ["#eef3ff", "#2f5bc7", "#121b2f", "#8fb2ff"],
    ["#e8f7f3", "#0b6e64", "#0e2320", "#5fdcc8"],
    ["#f4efff", "#6a3cc9", "#1d1631", "#c3aeff"],
    ["#fcf5e0", "#806000", "#252009", "#e3c75e"],
    ["#fcf0f7", "#a92d75", "#29131f", "#f3a4ce"],
    ["#edf7ea", "#38772a", "#14230f", "#9bd78b"],
    ["#e7f5fa", "#0d6c86", "#0c2129", "#6cd0eb"],
    ["#f1f3f6", "#465467", "#1a202a", "#b2bfd2"],
];

/// Everything else: selector, property, light, dark.
const RULES: [(&str, &str, &str, &str); 13] = [
    (".page", "fill", "#ffffff", "#0d1117"),
    (".ink", "fill", "#1b2230", "#e8edf4"),
    (".faint", "fill", "#5c6778", "#93a0b2"),
    (".box", "fill", "#ffffff", "#161c26"),
    (".plain .box", "stroke", "#465467", "#b2bfd2"),
    (".line", "stroke", "#7a8699", "#8090a6"),
    (".tip", "fill", "#7a8699", "#8090a6"),
    (".tip.hollow", "stroke", "#7a8699", "#8090a6"),
    (".tip.hollow", "fill", "#ffffff", "#0d1117"),
    (".line.critical", "stroke", "#dd4b12", "#ff8a4c"),
    (".tip.critical", "fill", "#dd4b12", "#ff8a4c"),
    (".critical .box", "stroke", "#dd4b12", "#ff8a4c"),
    (".critical .when", "fill", "#b93c0c", "#ff9f6b"),
];

const SHAPES: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI','Liberation Sans','DejaVu Sans',sans-serif}
.name{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}
.when,.note{font-size:9.5px}
.title{font-size:16px;font-weight:600}
.stage{font-size:12px;font-weight:600}
.target .name{font-weight:600}
.box{stroke-width:1.2}
.conditional .box{stroke-dasharray:5 3}
.critical .box{stroke-width:2.4}
.line{fill:none;stroke-width:1.2}
.line.order{stroke-dasharray:5 3.5}
.line.want{stroke-dasharray:1.5 3}
.line.critical{stroke-width:2.6}
.line.order.critical{stroke-dasharray:9 4}
.tip.hollow{stroke-width:1.2}
";

/// The style sheet.
pub(super) fn sheet() -> String {
    let mut sheet = String::from(SHAPES);
    colours(&mut sheet, 0);
    sheet.push_str("@media (prefers-color-scheme:dark){\n");
    colours(&mut sheet, 1);
    sheet.push_str("}\n");
    sheet
}

fn colours(sheet: &mut String, theme: usize) {
    for (at, hue) in STAGES.iter().enumerate() {
        let (lane, ink) = (hue[2 * theme], hue[2 * theme + 1]);
        let _ = writeln!(
            sheet,
            ".s{at} .lane{{fill:{lane}}}.s{at} .stage{{fill:{ink}}}.s{at} .box{{stroke:{ink}}}"
        );
    }
    // Behind those of the stages, so that the critical path wins over them.
    for (selector, property, light, dark) in RULES {
        let colour = if theme == 0 { light } else { dark };
        let _ = writeln!(sheet, "{selector}{{{property}:{colour}}}");
    }
}
