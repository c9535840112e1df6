//! Plot: lines over parked containers, as SVG.

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 48.0;

/// One line: milliseconds over parked containers.
pub struct Line {
    /// What is written at its end.
    pub name: String,
    /// As SVG calls it.
    pub color: &'static str,
    /// From left to right.
    pub points: Vec<(usize, f64)>,
}

/// Wall times against parked containers, on a scale where ten times as long is as far everywhere: who takes
/// a hundred times as long as another fits in beside it.
#[must_use]
pub fn plot(title: &str, lines: &[Line]) -> String {
    let float = |parked: usize| f64::from(u32::try_from(parked).unwrap_or(u32::MAX));
    let points = || lines.iter().flat_map(|line| &line.points);
    let parked_max = points().map(|(at, _)| float(*at)).fold(1.0, f64::max);
    let powers = || points().map(|(_, ms)| ms.log10());
    let least = powers().fold(0.0, f64::min).floor();
    let most = powers().fold(1.0, f64::max).ceil();
    let x = |parked: usize| MARGIN + float(parked) / parked_max * (WIDTH - 2.0 * MARGIN);
    let y = |ms: f64| {
        let part = (ms.log10() - least) / (most - least);
        HEIGHT - MARGIN - part * (HEIGHT - 2.0 * MARGIN)
    };
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>"#
    );
    let mut text = |at: (f64, f64), anchor: &str, text: &str| {
        svg += &format!(
            r#"<text x="{:.0}" y="{:.0}" text-anchor="{anchor}">{text}</text>"#,
            at.0, at.1
        );
    };
    text((MARGIN, 20.0), "start", title);
    let mut power = least;
    while power <= most {
        let ms = 10_f64.powf(power);
        text((MARGIN - 8.0, y(ms) + 4.0), "end", &ms.to_string());
        power += 1.0;
    }
    let mut ticks: Vec<usize> = points().map(|(at, _)| *at).collect();
    ticks.sort_unstable();
    ticks.dedup();
    for parked in ticks {
        let at = (x(parked), HEIGHT - MARGIN + 20.0);
        text(at, "middle", &parked.to_string());
    }
    for Line {
        name,
        color,
        points,
    } in lines
    {
        let path = points
            .iter()
            .map(|(parked, ms)| format!("{:.1},{:.1}", x(*parked), y(*ms)));
        let path: Vec<String> = path.collect();
        let (at, ms) = points.last().copied().unwrap_or_default();
        svg += &format!(
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2"/><text x="{:.0}" y="{:.0}" text-anchor="end" fill="{color}">{name}</text>"#,
            path.join(" "),
            x(at),
            y(ms) - 8.0,
        );
    }
    svg + "</svg>\n"
}
