/* curve.c: a loss curve in braille characters, whose 2 x 4 dots give 120 x 40 points on 60 x 10 characters; on
 * a narrow terminal fewer. */
#include <math.h>

#include "cli/cli.h"

enum { MOST_COLUMNS = 60, FEWEST_COLUMNS = 20, SCALE = 11, LINES = 10, HIGH = 4 * LINES };

/* Mean of the losses that fall on dot column `x` of `wide`; NAN where they are not finite. */
static double column_mean(const double *losses, int64_t count, int x, int wide) {
    int64_t from = x * count / wide, to = (x + 1) * count / wide;
    double sum = 0;
    if (to <= from) to = from + 1;
    for (int64_t i = from; i < to; i++) sum += losses[i];
    return sum / (double)(to - from);
}

static void set_dot(unsigned char cells[LINES][MOST_COLUMNS], int x, int y) {
    static const unsigned char bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    cells[y / 4][x / 2] |= bits[y % 4][x % 2];
}

static void put_lines(FILE *file, unsigned char cells[LINES][MOST_COLUMNS], int columns, double low,
                      double high) {
    for (int line = 0; line < LINES; line++) {
        if (line == 0 || line == LINES - 1) fprintf(file, "%9.4f ┤", line == 0 ? high : low);
        else fprintf(file, "%9s │", line == LINES / 2 ? "loss" : "");
        for (int column = 0; column < columns; column++) { /* U+2800 + bits in UTF-8 */
            unsigned bits = cells[line][column];
            fprintf(file, "%c%c%c", 0xE2, 0xA0 | (int)(bits >> 6), 0x80 | (int)(bits & 0x3F));
        }
        fputc('\n', file);
    }
}

void cli_draw_curve(FILE *file, const double *losses, int64_t count, int64_t first_step, int width) {
    unsigned char cells[LINES][MOST_COLUMNS] = {{0}};
    double low = INFINITY, high = -INFINITY;
    int before = -1, columns = width - SCALE < MOST_COLUMNS ? width - SCALE : MOST_COLUMNS, wide = 2 * columns;
    if (count < 2 || columns < FEWEST_COLUMNS) return;
    for (int x = 0; x < wide; x++) {
        double mean = column_mean(losses, count, x, wide);
        if (!isfinite(mean)) continue;
        low = fmin(low, mean);
        high = fmax(high, mean);
    }
    if (!(low <= high)) return;
    for (int x = 0; x < wide; x++) {
        double mean = column_mean(losses, count, x, wide);
        if (!isfinite(mean)) continue;
        int y = high > low ? (int)lround((high - mean) / (high - low) * (HIGH - 1)) : HIGH / 2;
        int from = before < 0 ? y : before; /* steep parts are joined by a vertical stroke */
        for (int dot = from; dot != y; dot += from < y ? 1 : -1) set_dot(cells, x, dot);
        set_dot(cells, x, y);
        before = y;
    }
    put_lines(file, cells, columns, low, high);
    fprintf(file, "%9s └ step %lld … %lld\n", "", (long long)first_step, (long long)(first_step + count - 1));
}
