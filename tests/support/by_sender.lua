-- Does what the sender's local part asks for, so that one running milter shows every verdict and edit.
local policy = {}

function policy.mail(ctx, sender, args)
  if sender:match("^mail%-tempfail@") then return milter.TEMPFAIL end
end

function policy.rcpt(ctx, recipient, args)
  if recipient == "bad@example.org" then return ctx:reply("550", "5.1.1", "no such user here") end
end

function policy.header(ctx, name, value) end
function policy.body(ctx, chunk) end

function policy.eom(ctx)
  local wish = ctx.sender:match("^([^@]*)@")
  if wish == "body" then
    ctx:replace_body("replaced\r\nby the policy\r\n")
  elseif wish == "quarantine" then
    ctx:quarantine("held by the policy")
  elseif wish == "discard" then
    return milter.DISCARD
  elseif wish == "tempfail" then
    return ctx:reply("451", "4.7.1", "come back later, 100% sure")
  elseif wish == "reject" then
    return ctx:reply("550", "5.7.1", "first line", "second line")
  elseif wish == "fault" then
    error("the policy failed on purpose")
  elseif wish == "subject" then
    ctx:change_header("Subject", 1, "changed")
  elseif wish == "envelope" then
    ctx:change_sender("other@b.example")
    ctx:add_recipient("more@example.org")
  end
  ctx:add_header("X-Filter", "ok")
end

return policy
