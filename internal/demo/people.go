package demo

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// person is one contact of the campaign, with what the vendors know it by.
type person struct {
	first, last string
	email       string
	company     string
	title       string
	profile     string // LinkedIn URL
	contactID   string // the customer's own id
	lead        string // lemlist lea_
	lemContact  string // lemlist ctc_
	variant     string // A or B
	reader      reader
	reads       bool // mail, at all
	proxied     bool // a program fetches the pictures of each mail

	// What follows changes while the play goes on.
	enrollment string // id; empty: not enrolled yet
	refs       []ref  // known before the enrollment
	waiting    int    // events that came in before the enrollment
	told       bool   // its waiting was told in a sentence
}

func (p *person) name() string { return p.first + " " + p.last }

// reader is with what somebody reads mail.
type reader struct {
	client, clientCompany, family string
	os, osCompany, osFamily       string
	platform, agent               string
	country, code, region, city   string
}

// company is an employer; every start has its own, so that no address is in
// two demo campaigns and events found by their address stay unambiguous.
type company struct{ name, domain string }

const companies = 48 // of one campaign

// crowd invents people without end: each index is another one.
type crowd struct {
	number    int // of the demo campaign, 1 for the first
	salt      string
	companies []company
}

func newCrowd(number int, salt string) *crowd {
	prefixes, suffixes := companyPrefixes(), companySuffixes()
	all := len(prefixes) * len(suffixes)
	c := &crowd{number: number, salt: salt}
	for i := range companies {
		n := (number - 1) * companies * 5 % all // a block for each start
		n = (n + i*5) % all
		n = n * 101 % all // coprime: neighbours look unlike
		a, b := prefixes[n%len(prefixes)], suffixes[n/len(prefixes)]
		c.companies = append(c.companies, company{a + " " + b, strings.ToLower(a+b) + ".example"})
	}
	return c
}

// person makes the i-th contact.
func (c *crowd) person(i int, rnd *rand.Rand) *person {
	first, last := firstNames(), lastNames()
	all := len(first) * len(last)
	n := (i + c.number*61) * 1013 % all // coprime, so no name comes twice before all did
	p := &person{first: first[n%len(first)], last: last[n/len(first)]}
	works := c.companies[(i*7+i/all)%len(c.companies)]
	local := strings.ToLower(p.first + "." + p.last)
	if i >= all {
		local += strconv.Itoa(i / all)
	}
	p.company = works.name
	p.email = local + "@" + works.domain
	p.title = pick(rnd, titles())
	p.profile = "https://www.linkedin.com/in/" + strings.ReplaceAll(local, ".", "-") + "-" + c.hex("profile", i, 6)
	p.contactID = "crm-" + strconv.Itoa(10_000*c.number+i)
	p.lead = "lea_" + c.id("lead", i)
	p.lemContact = "ctc_" + c.id("contact", i)
	p.variant = []string{"A", "B"}[i%2]
	p.reader = pick(rnd, readers())
	p.reads, p.proxied = chance(rnd, 66), chance(rnd, 22)
	return p
}

// id makes the 17 characters of a vendor's id. The same campaign makes the
// same id again, and two campaigns never share one.
func (c *crowd) id(kind string, i int) string {
	sum := c.sum(kind, i)
	return base32.NewEncoding("ABCDEFGHJKLMNPQRSTWXYZabcdefghi2").WithPadding(base32.NoPadding).EncodeToString(sum[:])[:17]
}

func (c *crowd) hex(kind string, i, n int) string {
	sum := c.sum(kind, i)
	return hex.EncodeToString(sum[:])[:n]
}

// guid makes an id in the form that Postmark uses.
func (c *crowd) guid(kind string, i int) string {
	h := c.hex(kind, i, 32)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
}

func (c *crowd) sum(kind string, i int) [32]byte {
	return sha256.Sum256([]byte(c.salt + "/" + kind + "/" + strconv.Itoa(i)))
}

// chance is true in so many of a hundred cases.
func chance(rnd *rand.Rand, percent float64) bool { return rnd.Float64()*100 < percent }

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// between gives a duration from a to b.
func between(rnd *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(rnd.Int64N(int64(b-a)))
}

func firstNames() []string {
	return strings.Fields(`Ada Grace Alan Edsger Barbara Donald Radia Linus Margaret Dennis Frances Ken Katherine Niklaus
		Sofia Mateo Lucia Hugo Camille Louis Chiara Marco Elena Stefan Ingrid Lars Freya Magnus Aino Mikko Zofia Piotr
		Ivana Milan Eszter Andras Ioana Radu Despina Nikos Leyla Emre Yasmin Omar Amira Tariq Priya Arjun Ananya Rohan
		Mei Jun Yuki Haruto Sakura Minh Linh Thabo Naledi Kwame Abena Chidi Ngozi Wanjiru Joao Beatriz Rafael Valentina`)
}

func lastNames() []string {
	return strings.Fields(`Lovelace Hopper Keller Lindqvist Okafor Moreau Bianchi Kowalski Novak Petrov Haddad Rahman Sharma
		Tanaka Nguyen Mensah Dlamini Silva Costa Fernandez Castillo Virtanen Hansen Johansson Bakker Janssen Peeters
		Schneider Weber Hoffmann Gruber Brunner Rossi Ferrari Dupont Lefevre Murphy Walsh Campbell Fraser Bennett Carter
		Hughes Patel Iyer Kaur Chen Wong Kim Park Sato Suzuki Yilmaz Demir Papadakis Ionescu Horvath Szabo Jensen Berg
		Larsen Nieminen Torres Mendes Abebe Kamau Diallo Osei Adeyemi Mbeki Amari Levy Stein Marsh`)
}

func companyPrefixes() []string {
	return strings.Fields(`North Silver Blue Green Harbor Maple Cedar Summit River Stone Bright Clear Swift Iron Copper
		Lumen Vector Atlas Orbit Quanta Prairie Coastal Alpine Fjord Meridian Cobalt Amber Juniper Willow Falcon Heron
		Kestrel Beacon Granite Harvest Aurora Zephyr`)
}

func companySuffixes() []string {
	return strings.Fields(`Labs Works Systems Foods Freight Health Energy Bank Software Robotics Media Textiles Optics
		Logistics Analytics Partners Studio Motors Water Dental Insurance Travel Metals Garden Retail Security`)
}

func titles() []string {
	return []string{
		"Head of Sales", "VP Marketing", "Operations Manager", "Founder", "CTO", "Revenue Operations Lead",
		"Sales Director", "Growth Manager", "CEO", "Procurement Manager", "Customer Success Lead", "Head of Partnerships",
	}
}

func readers() []reader {
	const mozilla = "Mozilla/5.0 "
	return []reader{
		{
			"Chrome 142.0.0.0", "Google Inc.", "Chrome", "OS X 15 Sequoia", "Apple Computer, Inc.", "OS X", "Desktop",
			mozilla + "(Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
			"Germany", "DE", "Berlin", "Berlin",
		},
		{
			"Outlook 2021", "Microsoft Corporation", "Outlook", "Windows 11", "Microsoft Corporation", "Windows", "Desktop",
			"Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.14332; Pro)",
			"Netherlands", "NL", "North Holland", "Amsterdam",
		},
		{
			"Mobile Safari 18.5", "Apple Inc.", "Safari", "iOS 18", "Apple Computer, Inc.", "iOS", "Mobile",
			mozilla + "(iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
			"France", "FR", "Ile-de-France", "Paris",
		},
		{
			"Firefox 145.0", "Mozilla Foundation", "Firefox", "Ubuntu", "Canonical Ltd.", "Linux", "Desktop",
			mozilla + "(X11; Ubuntu; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
			"Finland", "FI", "Uusimaa", "Helsinki",
		},
		{
			"Chrome Mobile 142.0.0.0", "Google Inc.", "Chrome", "Android 16", "Google Inc.", "Android", "Mobile",
			mozilla + "(Linux; Android 16; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
			"United States", "US", "Illinois", "Chicago",
		},
	}
}

// proxy is what fetches pictures before, or without, anybody reading: its
// opens look like a person's to whoever does not look twice.
func proxy() reader {
	return reader{
		"Gmail Image Proxy", "Google Inc.", "Gmail Image Proxy", "unknown", "", "unknown", "WebMail",
		"Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
		"United States", "US", "California", "Mountain View",
	}
}
