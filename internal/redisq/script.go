package redisq

import (
	_ "embed"

	"github.com/redis/rueidis"
)

//go:embed script/common.lua
var common string

//go:embed script/park.lua
var parkSource string

//go:embed script/claim.lua
var claimSource string

//go:embed script/settle.lua
var settleSource string

//go:embed script/remove.lua
var removeSource string

//go:embed script/stats.lua
var statsSource string

//go:embed script/probe.lua
var probeSource string

//go:embed script/begin.lua
var beginSource string

//go:embed script/finish.lua
var finishSource string

//go:embed script/book.lua
var bookSource string

// scripts are the steps that a queue is made of, each atomic on one shard,
// whose keys have a tag in common:
//
//	BASE:q:ROUTE:TENANT  sorted set: number -> when it may be claimed, leased or not
//	BASE:turn:ROUTE      sorted set: tenant -> max(its first such moment, last served)
//	BASE:lease:ROUTE     hash: number -> token of who claimed it
//	BASE:depth           hash: route -> numbers held
//	BASE:marker          hash: the last rebuild, and on which run of Redis it was
//	BASE:probe           written to see whether writing works
//
//	BASE:limit:BUDGET    hash: stretch of a replica -> what it has let through
//
// Moments are milliseconds of Redis' own clock. No key has a time to live but
// the budgets, which end with their period.
type scripts struct {
	park, claim, settle, remove, stats, probe, begin, finish, book *rueidis.Lua
}

// newScripts gives each script its flags, which Redis has since version 7. Park
// and book are refused when memory is short: a script that runs out half-way would
// leave its work half done, and the others make room.
func newScripts() scripts {
	script := func(flags, source string) *rueidis.Lua {
		return rueidis.NewLuaScript("#!lua" + flags + "\n" + common + source)
	}
	const roomy = " flags=allow-oom"
	return scripts{
		park: script("", parkSource), claim: script(roomy, claimSource), settle: script(roomy, settleSource),
		remove: script(roomy, removeSource), stats: script(" flags=no-writes", statsSource),
		probe: script(roomy, probeSource), begin: script(roomy, beginSource), finish: script(roomy, finishSource), book: script("", bookSource),
	}
}
