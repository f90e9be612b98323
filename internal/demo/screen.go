package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	width       = 100 // columns
	headerEvery = 20  // lines of numbers
)

// screen writes whole lines, one after the other, with no cursor tricks and
// no colours: a terminal, a file and a pipe all stay readable.
type screen struct {
	out io.Writer
	gap time.Duration // between sentences that may be left out

	mu    sync.Mutex
	lines int // of numbers, since the header
	last  time.Time
	said  map[string]bool
}

func newScreen(out io.Writer, gap time.Duration) *screen {
	return &screen{out: out, gap: gap, lines: headerEvery, said: map[string]bool{}}
}

// print writes lines as they are.
func (s *screen) print(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(lines...)
}

func (s *screen) write(lines ...string) {
	// A reader that went away must not end the play.
	_, _ = io.WriteString(s.out, strings.Join(lines, "\n")+"\n")
}

// numbers writes the line of a second.
func (s *screen) numbers(n numbers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines >= headerEvery {
		s.lines = 0
		s.write(fmt.Sprintf("%9s %10s %9s %9s %9s %11s %9s %6s",
			"day", "received", "applied", "waiting", "adopted", "duplicates", "ignored", "dead"))
	}
	s.lines++
	s.write(fmt.Sprintf("%9s %10d %9d %9s %9d %11d %9d %6s",
		n.day, n.received, n.applied, n.waiting, n.adopted, n.duplicates, n.ignored, n.dead))
}

// say writes a sentence on a line of its own, now and then: false when it was
// left out. must is for what belongs to a sentence already said.
func (s *screen) say(must bool, format string, args ...any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !must && time.Since(s.last) < s.gap {
		return false
	}
	s.last = time.Now()
	s.write(cut("        > " + fmt.Sprintf(format, args...)))
	return true
}

// once writes what went wrong, a single time for what it is about.
func (s *screen) once(about, text string) {
	s.mu.Lock()
	said := s.said[about]
	s.said[about] = true
	s.mu.Unlock()
	if !said {
		s.notice(text)
	}
}

// notice writes what needs attention, in as many lines as it takes.
func (s *screen) notice(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range wrap(text, width-10) {
		s.write("        ! " + l)
	}
}

// cut keeps a line within the screen.
func cut(line string) string {
	if r := []rune(line); len(r) > width {
		return string(r[:width-3]) + "..."
	}
	return line
}

// wrap breaks a text between words.
func wrap(text string, columns int) []string {
	var lines []string
	line := ""
	for w := range strings.FieldsSeq(text) {
		for r := []rune(w); len(r) > columns; r = []rune(w) { // no word that fits
			if line != "" {
				lines, line = append(lines, line), ""
			}
			lines, w = append(lines, string(r[:columns])), string(r[columns:])
		}
		switch {
		case line == "":
			line = w
		case len([]rune(line))+1+len([]rune(w)) > columns:
			lines, line = append(lines, line), w
		default:
			line += " " + w
		}
	}
	return append(lines, line)
}
