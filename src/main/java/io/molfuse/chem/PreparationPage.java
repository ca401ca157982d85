// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** The report of a preparation as one HTML page with charts in SVG. */
final class PreparationPage {
  private static final int WIDTH = 560;
  private static final int HEIGHT = 220;
  private static final int LEFT = 56;
  private static final int BOTTOM = 36;
  private static final int TOP = 10;
  private static final int BAR_ROW = 20;
  private static final int LABEL_WIDTH = 120;

  /** Bars of a chart by name; the rest is one bar. */
  private static final int MAX_BARS = 24;

  private static final String STYLE =
      "body{font:15px/1.45 system-ui,sans-serif;color:#1d2733;max-width:1200px;margin:2rem auto;padding:0 1rem}"
          + "h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin:1.8rem 0 .5rem}"
          + "table{border-collapse:collapse}td,th{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top;"
          + "border-bottom:1px solid #dfe5eb}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
          + ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(520px,1fr));gap:1rem 2rem}"
          + "figure{margin:0}figcaption{font-weight:600;margin-bottom:.3rem}figcaption small{font-weight:400;color:#5c6b7a}"
          + "code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}svg{max-width:100%;height:auto}"
          + "svg text{font:11px system-ui,sans-serif;fill:#5c6b7a}svg .bar{fill:#3b76b5}svg .axis{stroke:#b9c4cf}";

  private final PreparationReport report;
  private final StringBuilder out = new StringBuilder(1 << 15);

  PreparationPage(PreparationReport report) {
    this.report = report;
  }

  String html() {
    out.append("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Prepared molecules</title>")
        .append("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><style>")
        .append(STYLE)
        .append("</style></head><body>\n<h1>Prepared molecules</h1>\n<p>")
        .append(escape(report.summary()))
        .append("</p>\n");
    overview();
    charts();
    rejections();
    settings();
    return out.append("</body></html>\n").toString();
  }

  private void overview() {
    Map<String, String> rows = new LinkedHashMap<>();
    for (MoleculeRecords.Split split : MoleculeRecords.Split.values()) {
      rows.put("molecules in " + split, count(report.kept(split)));
    }
    rows.put("salts taken off", count(report.desalted()));
    rows.put("charges taken off", count(report.neutralised()));
    rows.put("different SELFIES symbols", count(report.symbols().size()));
    if (report.kept() > 0) {
      rows.put("longest sequence in tokens", count((long) report.tokens().greatest()));
    }
    if (report.recommendedPreset() != null) {
      rows.put("recommended preset", report.recommendedPreset());
    }
    out.append("<table>");
    rows.forEach((name, value) -> row(name, "<td class=\"n\">" + escape(value)));
    out.append("</table>\n");
  }

  private void charts() {
    if (report.kept() == 0) {
      return;
    }
    out.append("<h2>What was kept</h2>\n<div class=\"charts\">\n");
    histogram("Molecular weight", "g/mol", report.weight());
    histogram("Heavy atoms", "atoms a molecule", report.heavyAtoms());
    histogram("Length of sequences", "tokens, start and end among them", report.tokens());
    histogram("Length of SMILES", "characters", report.smilesLength());
    bars("Atoms by element", "without implicit hydrogens", report.elements());
    bars("SELFIES symbols", "most frequent", report.symbols());
    out.append("</div>\n");
  }

  private void rejections() {
    out.append("<h2>What was not kept</h2>\n");
    if (report.rejected().isEmpty()) {
      out.append("<p>Every record was kept.</p>\n");
      return;
    }
    out.append("<table><tr><th>reason</th><th class=\"n\">records</th><th>the first of them</th></tr>\n");
    report.rejected().forEach(
        (reason, count) -> {
          out.append("<tr><td>").append(escape(reason.text())).append("</td><td class=\"n\">").append(count(count)).append("</td><td>");
          for (BadRecordReport.Example example : report.examples(reason)) {
            out.append("<code>")
                .append(escape(example.file().getFileName() + ":" + example.line()))
                .append("</code> ")
                .append(escape(example.detail()));
            if (!example.smiles().isEmpty()) {
              out.append(" <code>").append(escape(example.smiles())).append("</code>");
            }
            out.append("<br>");
          }
          out.append("</td></tr>\n");
        });
    out.append("</table>\n");
  }

  private void settings() {
    out.append("<h2>Inputs and settings</h2>\n<table>");
    report.inputs().forEach(input -> row("input", "<td><code>" + escape(input.toString()) + "</code>"));
    report.settings().forEach((name, value) -> row(name, "<td><code>" + escape(value) + "</code>"));
    out.append("</table>\n");
  }

  private void row(String name, String cell) {
    out.append("<tr><td>").append(escape(name)).append("</td>").append(cell).append("</td></tr>");
  }

  private void caption(String title, String unit) {
    out.append("<figure><figcaption>").append(title).append(" <small>").append(unit).append("</small></figcaption>");
  }

  private void histogram(String title, String unit, Histogram histogram) {
    long first = histogram.bins().firstKey();
    long bins = histogram.bins().lastKey() - first + 1;
    // Outliers shall not make the others thinner than a line.
    int joined = (int) Math.max(1, (bins + 79) / 80);
    List<Long> counts = new ArrayList<>();
    for (long bin = first; bin < first + bins; bin += joined) {
      counts.add(histogram.bins().subMap(bin, bin + joined).values().stream().mapToLong(Long::longValue).sum());
    }
    long most = counts.stream().mapToLong(Long::longValue).max().orElse(1);
    double step = (double) (WIDTH - LEFT) / counts.size();
    double scale = (double) (HEIGHT - BOTTOM - TOP) / most;
    String figures = String.format(Locale.ROOT, "; mean %.1f, %.0f to %.0f", histogram.mean(), histogram.least(), histogram.greatest());
    caption(title, unit + figures);
    svg(HEIGHT, title);
    for (int i = 0; i < counts.size(); i++) {
      double height = counts.get(i) * scale;
      String label = range(histogram, first + (long) i * joined, joined) + ": " + count(counts.get(i));
      rectangle(LEFT + i * step, HEIGHT - BOTTOM - height, Math.max(1, step - 1), height, label);
    }
    line(LEFT, HEIGHT - BOTTOM, WIDTH, HEIGHT - BOTTOM);
    text(LEFT - 6, TOP + 8, "end", count(most));
    text(LEFT - 6, HEIGHT - BOTTOM, "end", "0");
    int every = Math.max(1, (counts.size() + 9) / 10);
    for (int i = 0; i < counts.size(); i += every) {
      text(LEFT + i * step, HEIGHT - BOTTOM + 16, "start", number((first + (double) i * joined) * histogram.width()));
    }
    out.append("</svg></figure>\n");
  }

  private static String range(Histogram histogram, long bin, int joined) {
    double from = bin * histogram.width();
    double width = joined * histogram.width();
    return width == 1 ? number(from) : number(from) + " to below " + number(from + width);
  }

  private void bars(String title, String unit, Map<String, Long> counts) {
    Map<String, Long> shown = new LinkedHashMap<>();
    long rest = 0;
    for (Map.Entry<String, Long> entry : counts.entrySet()) {
      if (shown.size() < MAX_BARS) {
        shown.put(entry.getKey(), entry.getValue());
      } else {
        rest += entry.getValue();
      }
    }
    if (rest > 0) {
      shown.put(counts.size() - MAX_BARS + " more", rest);
    }
    long most = shown.values().stream().mapToLong(Long::longValue).max().orElse(1);
    caption(title, unit);
    svg(shown.size() * BAR_ROW + 4, title);
    int row = 0;
    for (Map.Entry<String, Long> entry : shown.entrySet()) {
      double width = (double) (WIDTH - LABEL_WIDTH - 90) * entry.getValue() / most;
      text(LABEL_WIDTH - 6, row * BAR_ROW + 14, "end", entry.getKey());
      rectangle(LABEL_WIDTH, row * BAR_ROW + 3, Math.max(1, width), BAR_ROW - 5, entry.getKey() + ": " + count(entry.getValue()));
      text(LABEL_WIDTH + width + 6, row * BAR_ROW + 14, "start", count(entry.getValue()));
      row++;
    }
    out.append("</svg></figure>\n");
  }

  private void svg(int height, String title) {
    out.append(
        String.format(
            Locale.ROOT, "<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">",
            WIDTH, height, WIDTH, height, escape(title)));
  }

  private void rectangle(double x, double y, double width, double height, String title) {
    out.append(
        String.format(
            Locale.ROOT,
            "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%s</title></rect>",
            x, y, width, height, escape(title)));
  }

  private void line(double x1, double y1, double x2, double y2) {
    out.append(String.format(Locale.ROOT, "<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", x1, y1, x2, y2));
  }

  private void text(double x, double y, String anchor, String text) {
    out.append(String.format(Locale.ROOT, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>", x, y, anchor, escape(text)));
  }

  private static String count(long value) {
    return String.format(Locale.ROOT, "%,d", value);
  }

  private static String number(double value) {
    return value == Math.rint(value) ? String.valueOf((long) value) : String.valueOf(value);
  }

  static String escape(String text) {
    StringBuilder escaped = new StringBuilder(text.length());
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      switch (c) {
        case '&' -> escaped.append("&amp;");
        case '<' -> escaped.append("&lt;");
        case '>' -> escaped.append("&gt;");
        case '"' -> escaped.append("&quot;");
        default -> escaped.append(c < ' ' ? '\uFFFD' : c);
      }
    }
    return escaped.toString();
  }
}
